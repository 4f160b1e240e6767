"""What travels between the control side and a base: the one place that knows how things are spelled on the wire.

Lives here: requests with their lenient decoding, replies with their strict types, the envelope around every reply, and
the codes. May not: do I/O, know the container, decide anything. The arklet decodes what the client encodes, and the
other way round.
"""
