"""Recorders of whatever runs or is open: threads, executors, processes, sockets, servers and pools.

Each asks for an end, waits with the deadline of the uninstall, and ends by force if a biz allows (`ending`).
"""
