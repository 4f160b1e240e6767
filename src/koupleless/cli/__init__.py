"""The command line, ``arkctl``: builds artefacts, makes them reachable, and calls the API of an arklet.

Lives here: commands, their output and advice, project templates, the demonstration. May not: know how a base works
inside; every call to a base could be made with ``curl``. Results go to stdout, all other texts to stderr. Called only
by the console script and ``python -m koupleless``. A command imports its modules when it runs, so that ``arkctl
status`` starts without the base.
"""
