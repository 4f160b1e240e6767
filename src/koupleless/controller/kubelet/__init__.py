"""The API of a kubelet for the Nodes of bases: logs, consoles, forwarded ports and figures of modules.

Serves the API server, and so ``kubectl``. ``transport`` speaks HTTP and SPDY, ``callers`` decides about callers,
``certificates`` gets the certificate of the server, and ``kubelet`` has the routes to ``logs``, ``forwarding``,
``console`` and ``figures``. The rest of the controller is known by protocols in ``places`` alone. Changing a Node, a
Pod or a module does not belong here.
"""
