"""Requests find a biz here: the ASGI application in front of the base, and the entrance of each biz.

Here live the route table (an immutable value, replaced as a whole), the front that searches the table, the gate of each
biz (requests inside, draining), the kinds of entry objects (ASGI, WSGI, a start function), one ASGI lifespan for each
biz, and the forward rules of the gateway.

No decision about the life of a biz is taken here, and nothing here imports a web framework: applications are only ever
called. The container makes gates, lifespans and tables and swaps the tables; the composition root puts a `Front` before
the application of the base and hands the front to the server.
"""
