"""Tunnels: the ways between the controller and bases. One protocol, spoken over HTTP or through a broker.

``tunnel`` is the protocol, ``answers`` reads the replies of bases of any kind, ``http`` calls the arklet of a base,
``discovery`` hears the heartbeats of bases over HTTP, ``mqtt`` does both through a broker, and ``router`` chooses. No
tunnel decides anything about a Node or a Pod.
"""
