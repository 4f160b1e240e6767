"""The health of a base and of its modules: the shared event loop, checks, readiness."""
