"""The API server, as the controller sees it.

Here lives the queue of the keys to be worked on (`queue`), with the delays of retries and the clock (`delays`).
Level-triggered: a change tells a key, never an event, and work on a key reads both sides anew. Nothing here knows
nodes, pods or bases. All code runs on one event loop.
"""
