"""The end of a biz: the steps out, files written below the code, unused libraries, objects left over.

`departure` takes the steps out, in order.
`remains` lists objects still in memory after their biz has left, `rescue` copies files into the data directory,
`settling` removes libraries without a user (`idle`) and returns memory to the system (`memory`).
"""
