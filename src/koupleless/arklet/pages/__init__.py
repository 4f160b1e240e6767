"""Answers to GET: probes for a scheduler of containers, health in the field's forms, and words for a person."""
