"""The way of a biz up to the start: fetches and unpacks an artefact, loads an entry, tells of a failure."""
