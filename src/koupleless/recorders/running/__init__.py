"""Recorders for code that runs and for open resources: threads, executors, traces, processes, sockets and servers.

Each undo asks for an end, waits with the deadline of the uninstall, and ends by force if a biz allows (`ending`).
"""
