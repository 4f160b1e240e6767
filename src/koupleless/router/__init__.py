"""How requests find a biz: the ASGI application in front of the base, and each biz's entrance.

Here live the route table (an immutable value that is replaced as a whole), the front that looks it up, the gate of each
biz (who is inside, draining, figures), what an entry object is (ASGI, WSGI, a start function), one ASGI lifespan per
biz, and the gateway's forward rules.

No decision about a biz's life is taken here, and nothing here imports a web framework: applications are only ever
called. The container makes gates, lifespans and tables and swaps them; the composition root puts a `Front` before the
base's application and hands it to the server.
"""
