"""Running: commands as modules.

Lives here: the portrait of a module, from a base or from a project, and the child process. May not: change a base.
Called by the commands.
"""
