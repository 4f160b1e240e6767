"""Showing: values and failures as text, tables for people and JSON for programs.

Lives here: rendering, the reports of failures with their advice, and the prediction of how libraries will be held. May
not: print, call a base. Called by the commands and by ``deploying``.
"""
