"""The tunnel through an MQTT broker: one connection for all bases of an env, in the words of the original.

``letters`` reads and names messages, ``clocks`` judges their age by the clock of each base, ``pending`` has the open
questions, ``broker`` and ``link`` keep the connection, ``leftovers`` clears the commands that an earlier controller
left at the broker, and ``tunnel`` is the whole. Visits of modules do not go through a broker; ``running`` calls.
"""
