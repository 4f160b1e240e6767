"""The ways from a base to a controller, called tunnels in the field: the base tells of life, identity and address.

Here live the heartbeat over HTTP, the session with an MQTT broker, the baseline of a controller, and the account of how
each tunnel fares. Doing a command does not belong here: commands go to the operations of the arklet, as over HTTP.
Reading settings does not, either. ``base`` makes an `Announcer`, begins the announcements when the base is ready, and
ends them first.
"""
