"""Services of modules: one address for the bases of a module, whichever ports the applications of the bases have.

``wishes`` reads the annotations of the author, ``endpoints`` judges which bases answer, ``slices`` lays out
EndpointSlices, ``services`` keeps Service and EndpointSlices in step, and alone speaks to the API server. The readiness
of Pods is told by others; called by ``controller``.
"""
