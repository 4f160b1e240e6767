"""Recorders for an event loop shared by bizs: tasks, timers, async generators, connections, and exits raised in them.

`eventloop` records the objects that bizs make on a loop, and `footprint` undoes the objects of one biz. `tasks` tells
the tasks of a biz, `stubborn` ends tasks despite caught cancellations, and `guards` and `protocols` keep exits inside
the callbacks of a loop and of a connection.
"""
