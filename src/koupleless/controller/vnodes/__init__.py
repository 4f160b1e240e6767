"""The Node of a base, and the signs of life of the base: values, without clock or connection.

``base`` reads a heartbeat, ``liveness`` judges the time since the last one, ``ways`` chooses between the tunnels to a
base, ``node`` makes the Node.
"""
