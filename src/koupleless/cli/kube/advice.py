"""Advice for reasons of Pods that are not ready: one sentence for each, as the page of the controller has them."""

from __future__ import annotations

from typing import Final

from koupleless.cli.showing.suggestions import EndedBroken, suggest

PAGE: Final = (
    "https://github.com/koupleless/koupleless-python/blob/main/docs/kubernetes-operations.md#when-a-pod-is-not-ready"
)
"""The section about Pods that are not ready."""
ADVICE: Final = {
    "AlreadyInstalled": "nothing: the next list of the base tells whether the module answers",
    "AnswerLost": "nothing: the next list of the base tells whether the module answers",
    "ArchiveRefused": "build the artefact again, and put the new file where the image says",
    "ArtifactError": "read the message; the image of the container is the address of an artefact",
    "BaseSilent": "look at the base: its process, its log, and the network to the controller",
    "BaseUnreachable": "check address, token (--arklet-token-file) and certificate (--arklet-ca) of the arklet",
    "BizFailed": "read the message, which is of the code of the module; arkctl logs NAME --pod POD has the traceback",
    "BizGone": "let the module stop its work in a stop hook",
    "Broken": "read the message; the controller removes the broken module, and installs the module again",
    "BuildFailed": "build the artefact, and name the file: a base builds nothing",
    "Busy": "wait: another operation on the module is under way in the base",
    "ContainerCreating": "wait: the module is being installed; arkctl logs NAME --pod POD shows the start",
    "CrashLoopBackOff": "look for why the module fails its probes: kubectl logs --previous",
    "CreateContainerConfigError": "create the ConfigMap, Secret, key or field, or mark the reference as optional",
    "Deactivated": "nothing, if a newer Pod of the module is on the same base: this Pod is to leave",
    "DeadlineExceeded": "give the Job more time (activeDeadlineSeconds), or look for what the module waits for",
    "DigestMismatch": "name the digest of the artefact that is there, or put the meant artefact back",
    "FetchFailed": "check the image from the machine of the base; a host with a login needs a pull secret there",
    "IdentityMismatch": "set BIZ_VERSION, and BIZ_NAME or the name of the container, as in the artefact",
    "InitContainersRefused": "remove the init containers: a module prepares itself when it starts",
    "InstallFailed": "read the message, and change the module or the Pod; the next attempt comes by itself",
    "Leaving": "look at the base, which does not uninstall; kubectl delete pod --force gives the Pod up",
    "LibrariesMissing": "build the artefact whole (arkctl build), and put the new file where the image says",
    "ManifestInvalid": "mend the keys that the message names, and build the artefact again",
    "ModuleRefused": "declare the distribution in the project of the module, and build the artefact again",
    "NoBase": "start the base again under the same identity, or wait for Kubernetes to delete the Pod",
    "NoSwitch": "start the base with -Dactivate.new.module=true, or let the controller reach the arklet over HTTP",
    "NotBegun": "look at the controller, which has told nothing about the Pod yet: kubectl logs, /readyz",
    "PatchRefused": "leave out the call that patches the whole process",
    "Pending": "look at the scheduler, which has not seen the Pod yet",
    "Reinstalling": "wait: the module is installed again",
    "RolloutRestart": "wait: the module starts again for the new revision, beside its present life",
    "SchedulingGated": "wait for the batch, or confirm it: kubectl describe deployment shows the progress",
    "StartFailed": "read the message, which is of the code of the module; arkctl logs NAME --pod POD has the traceback",
    "StartTimeout": "look for work that waits at import or start; the limit is start-timeout of the base",
    "StopFailed": "mend the stop hook; the module has left all the same",
    "Superseded": "give each artefact a version of its own: a newer Pod has another module of the same identity",
    "SwitchFailed": "read the message; the former version answers until a switch succeeds",
    "UninstallFailed": "read the message; arkctl show NAME --pod POD names the holders of the module",
    "Unschedulable": "compare nodeSelector, tolerations and affinity of the Pod with kubectl get nodes --show-labels",
    "VersionMissing": "set the variable BIZ_VERSION of the container",
}
"""Advice by reason. Reasons of a base are the second level of its error codes; other bases may have others."""
_OF_MODULES: Final = frozenset({"BizFailed", "Broken", "InstallFailed", "ModuleRefused", "StartFailed"})
"""Reasons with a message of the code of a module, which the advice of ``arkctl`` for messages may recognise."""


def advice_for(reason: str, message: str) -> str:
    """Return what to do about a reason: the advice for the message of a failed module, else that for the reason."""
    for_reason = ADVICE.get(reason, f"read the message, and {reason} in the list of error codes")
    return suggest(EndedBroken(reason, message)) or for_reason if reason in _OF_MODULES else for_reason
