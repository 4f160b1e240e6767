"""Rollouts in batches: new Pods of a Deployment wait at a scheduling gate, and are let through batch by batch.

``wishes`` reads the annotations of the author, ``record`` the annotation of the controller, ``step`` decides on the
next step, and ``batches`` takes the step. Values but for ``batches``, which alone speaks to the API server. The
scheduling, the install and the readiness of a Pod are the concern of others; called by ``controller``.
"""
