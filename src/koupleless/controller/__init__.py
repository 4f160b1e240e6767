"""The module controller: shows every base to Kubernetes as a Node, and every module as a Pod.

Level-triggered: the API server holds the desired modules, a base the actual ones, and everything between is a cache
and may be thrown away. Rooms, from the ground: ``names`` and ``times`` for texts of the wire, ``cluster`` for the way
to the API server, ``vnodes`` for the Node of a base, ``vpods`` for the modules of a Pod and the status of the Pod,
``doors`` for tokens, ``tunnels`` for the ways to bases, ``probes`` for the probes of containers, ``watching`` for
metrics and reports, ``bases`` for the care for single bases, ``leading`` for the leadership of Nodes, ``peers`` for
Deployments that follow bases, ``batches`` for rollouts in batches, ``services`` for Services of modules, ``fleet`` for
all bases, ``whereabouts`` and ``kubelet`` for the API of a kubelet, ``controller`` for the whole. The runtime of a base
stays outside.
"""
