"""The Node of a base, and the signs of life of the base: values, without clock or connection.

``base`` reads a heartbeat, ``liveness`` judges the time since the last one, ``node`` makes the Node.
"""
