"""Deployments that follow bases: as many replicas as bases of a cluster, and the baseline of a new base.

``deployment`` reads a Deployment, ``replicas`` keeps the number of replicas.
"""
