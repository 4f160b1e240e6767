"""The commands of an arklet that the original does not have.

Here live the commands themselves, and the use of the book of a container by some of them. Nothing here knows a
transport or the table of commands: the operations call, and make the replies.
"""
