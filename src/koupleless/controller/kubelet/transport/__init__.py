"""The connections of the kubelet's API: one request of HTTP/1.1 each, which may go on as SPDY/3.1.

Knows no Pods, no bases and no callers; the room above decides about requests.
"""
