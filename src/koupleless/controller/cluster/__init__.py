"""The API server, as the controller sees it.

Here live the requests for lists and watches with their errors (`api`), the cache of one kind (`cache`), the queue of
the keys to be worked on (`queue`), judgements about tokens (`reviews`), and the delays of retries with the clock
(`delays`). Level-triggered: a change tells a key, never an event, and work on a key reads both sides anew. Nothing here
knows nodes, pods or bases. All code runs on one event loop.
"""
