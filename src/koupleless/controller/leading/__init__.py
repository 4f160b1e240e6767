"""Which of several controllers leads which Node.

``leases`` takes, renews and gives up the Leases of Nodes, ``members`` knows the controllers that live, by a Lease of
each, and ``balance`` decides who leads how many Nodes. Nothing here knows bases or Pods; the fleet calls.
"""
