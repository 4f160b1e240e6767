"""Applications around the application of a module, each for one wish of its manifest or of its author.

Nothing here knows routes, gates or bizs: an application is taken, and an application is returned; live reload, which
comes and goes while the application serves, is called by the front for each request instead.
"""
