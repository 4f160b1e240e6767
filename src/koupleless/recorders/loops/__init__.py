"""Recorders for an event loop shared by bizs: tasks, timers, async generators, connections, and exits raised in them.

`eventloop` records and undoes, `stubborn` ends tasks despite caught cancellations, and `protocols` keeps exits inside
the callbacks of a connection.
"""
