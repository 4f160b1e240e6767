"""The desired modules of a base, kept on disk over the end of the process.

Here live the journal, the meaning of the records, the directory with the lock, and the book of a container.
Nothing here starts a module, reads an artefact or knows a container. The container writes, the composition root reads.
"""
