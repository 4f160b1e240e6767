"""The refusal of a command of ours that is no mistake: there is nothing to do, or not now."""


class NothingDone(Exception):
    """There is nothing to do the command to, in words for the message of the reply."""
