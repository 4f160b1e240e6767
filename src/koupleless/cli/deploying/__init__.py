"""Deploying: from a target named by the user to a serving module.

Lives here: the target and the build, the calls to the arklet, the file watcher, and the resources of a running command.
May not: parse flags, print. Called by the commands, ``serve`` (to build static modules) and the demonstration.
"""
