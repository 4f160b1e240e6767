"""Recorders of an event loop that bizs share: tasks, timers, async generators, connections, and exits out of them.

`eventloop` sees and undoes them, `stubborn` ends tasks that catch their cancellation, and `protocols` keeps exits
inside the callbacks of a connection.
"""
