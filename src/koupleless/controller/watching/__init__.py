"""Observation of a controller from outside: metrics for a scraper, and reports to webhooks.

``figures`` counts and writes the text of a scrape, ``measured`` is a tunnel with a stop-watch, ``webhooks`` sends
reports. Nothing here decides anything; the controller hands in the facts, and never waits.
"""
