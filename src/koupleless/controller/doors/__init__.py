"""Tokens at the doors between controller and bases: which caller may speak for which base, and the proofs for arklets.

``tokens`` reads tokens that may change, ``porter`` judges callers, ``credentials`` finds the token for the arklet of a
base. The tunnels call; nothing here decides about a Node or a Pod.
"""
