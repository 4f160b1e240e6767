"""Messages between the control side and a base: the one place that knows how requests and replies are spelled.

Lives here: requests with their lenient decoding, replies with their strict types, the envelope around every reply, and
the codes. May not: do I/O, know the container, decide anything. The client encodes requests and decodes replies; the
arklet decodes requests and encodes replies.
"""
