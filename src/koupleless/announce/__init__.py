"""The ways from a base to a controller, called tunnels in the field: the base tells of life, identity and address.

Here live the heartbeat over HTTP and the account of how each tunnel fares. Doing a command does not belong here: a
tunnel hands commands to the operations of the arklet, as the HTTP API does. Reading settings does not, either. ``base``
makes an `Announcer`, begins the announcements when the base is ready, and ends them first.
"""
