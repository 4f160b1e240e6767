"""The command line, ``arkctl``: it builds, locates, serves files for a while, and calls the arklet's API.

Lives here: commands, what they print, what they advise, project templates, the demonstration. May not: know how a base
works inside; whatever it asks of a base could be asked with ``curl``. Results go to stdout, everything else to stderr.
Nothing calls this room but the console script and ``python -m koupleless``. Commands import what they need when they
run, so that ``arkctl status`` starts without the base, and without anything that draws.
"""
