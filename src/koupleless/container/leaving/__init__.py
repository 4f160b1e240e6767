"""The end of a biz beyond its registrations: files written below its code, libraries without a user, objects left over.

`remains` lists objects of bizs that have left and are still in memory, `rescue` copies files into the data directory,
`settling` removes libraries that no biz uses (`idle`) and returns memory to the system (`memory`).
"""
