"""Kubernetes in the command line: ``arkctl kube``, and the way to the base of a Pod for all other commands.

Lives here: calls of ``kubectl``, facts about bases and Pods made of the answers, and advice for operators. May not:
import the controller beyond the names of labels; write to the cluster. Called by the commands, and by sessions with
``--pod``. All requests are those of ``kubectl``, so kubeconfig, context, logins and proxies are those of an operator,
and no library is needed.
"""
