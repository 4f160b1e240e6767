"""The end of a biz beyond its registrations: files written below the code, unused libraries, objects left over.

`remains` lists objects still in memory after their biz has left, `rescue` copies files into the data directory,
`settling` removes libraries without a user (`idle`) and returns memory to the system (`memory`).
"""
