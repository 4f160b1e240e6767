"""The state of a base that outlives the process: the desired modules, and kept values of their environments.

Here live the journal, the meaning of the records, the directory with the lock, the book of a container, and the values
of the modules' environments. Nothing here starts a module, reads an artefact or knows a container, the arklet or
settings. The container writes, the composition root reads.
"""
