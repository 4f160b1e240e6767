"""Metrics of a base and of the bizs there.

Here live the numbers of a container (`accounts`), the metrics made from the numbers (`families`), and the text of a
scrape by ``prometheus-client`` (`exposition`). Requests are counted in `router`; the registry of each biz is kept by
the adapter of ``prometheus-client``. The container opens and closes the accounts; the arklet asks for the text.
"""
