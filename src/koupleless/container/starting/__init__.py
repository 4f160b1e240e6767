"""The way of a biz up to its start: an artefact is fetched and unpacked, an entry is loaded, a failure is told."""
