"""The agent in a base that answers operations commands, called the arklet in the field.

Here live the orders that requests are read into, one function for each command over the container, the one map from
errors to replies, the HTTP server with its decision about callers, and the values of base health. Holding a biz,
reading settings, and running code of a biz on the loop of the server do not belong here. ``base`` makes an `Operations`
and an `ArkletServer` and takes both down again.
"""
