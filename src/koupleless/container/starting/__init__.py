"""The way of a biz up to the start: an artefact fetched and unpacked, facets, an entry loaded, a failure told."""
