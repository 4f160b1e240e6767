"""The agent in a base that answers ops commands: what the field calls the arklet.

Lives here: one function per command over the container, the one map from errors to replies, the HTTP server that
carries them and decides who may call, and the values of base health. May not: hold a biz, read settings, run code of a
biz on the server's loop. ``base`` makes an `Operations` and an `ArkletServer` and takes them down again.
"""
