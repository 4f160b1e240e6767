"""The probes of containers: asked for by Pods, sent to modules, and counted as by a kubelet.

``probe`` reads probes from a container, ``tally`` counts results, ``checks`` sends single requests, ``grpc`` speaks the
health protocol of gRPC, ``prober`` keeps the times of all probes of one base. The room decides on no operation: the
steward of the base asks for the results.
"""
