"""``arkctl kube``: the modules of a whole cluster, as Kubernetes has them."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from koupleless.cli.kube.kubectl import Kubectl
    from koupleless.cli.kube.overview import Overview


@click.group()
def kube() -> None:
    """Look at the bases and modules of a Kubernetes cluster."""


@kube.command()
@click.option("-n", "--namespace", metavar="NS", help="Pods of this namespace alone.  [default: all]")
@click.option("--env", metavar="ENV", help="Bases of this env alone.  [default: all]")
@click.option("--context", metavar="NAME", help="The context of the kubeconfig.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE", help="The way to the cluster.")
@click.option("--watch", type=click.FloatRange(min=0, min_open=True), metavar="SEC", help="Print every SEC seconds.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json"]),
              help="The form of output.  [default: table]")  # fmt: skip
def status(
    *,
    namespace: str | None,
    env: str | None,
    context: str | None,
    kubeconfig: Path | None,
    watch: float | None,
    output: str | None,
) -> int:
    """Show bases, Pods that are not ready, and controllers.

    Asks the API server alone, by kubectl. Ends with 1 if a base is silent or led by nobody, a Pod is not ready, or a
    base has a module without a Pod.
    """
    import time

    from koupleless.cli.kube.kubectl import Kubectl
    from koupleless.cli.kube.tables import overview_json, overview_text
    from koupleless.cli.showing.render import json_text
    from koupleless.settings.client import load_client

    settings = load_client({"context": context, "kubeconfig": kubeconfig, "output": output})
    kubectl = Kubectl(settings.kubeconfig, settings.context)
    while True:
        found = look(kubectl, namespace=namespace, env=env)
        if watch and sys.stdout.isatty() and settings.output != "json":
            click.clear()
        is_json = settings.output == "json"
        click.echo(
            json_text(overview_json(found)) if is_json else overview_text(found, is_wide=settings.output == "wide")
        )
        if watch is None:
            return 0 if found.is_well else 1
        sys.stdout.flush()
        time.sleep(watch)


@kube.command()
@click.argument("artefact", type=click.Path(exists=True, path_type=Path))
@click.option("--base", required=True, metavar="NAME", help="The name of the bases for the module.")
@click.option("--image", metavar="URL", help="The location for bases to fetch from.  [default: the file itself]")
@click.option("--env", default="dev", show_default=True, metavar="ENV", help="The env of the controller.")
@click.option("--base-version", metavar="V", help="The version of the bases.  [default: any]")
@click.option(
    "--select", "selected", multiple=True, metavar="K=V", help="A label of the Nodes of the bases; repeatable."
)
@click.option("--name", metavar="NAME", help="The name of the workload.  [default: that of the module]")
@click.option("--replicas", type=click.IntRange(min=0), default=1, show_default=True, help="The number of bases.")
@click.option("--everywhere", is_flag=True, help="Every chosen base gets the module: a DaemonSet.")
@click.option("--batches", type=click.IntRange(min=1), metavar="N", help="Roll out in so many batches.")
@click.option("--beta", "has_beta", is_flag=True, help="The first batch is one base, and waits for a confirmation.")
@click.option("--confirm", "confirms", is_flag=True, help="Every batch but the last waits for a confirmation.")
@click.option("--service-port", type=click.IntRange(1, 65535), metavar="PORT", help="The module gets a Service.")
def manifest(artefact: Path, *, base: str, image: str | None, selected: tuple[str, ...], everywhere: bool,
             **choices: Any) -> None:  # fmt: skip
    """Print the Deployment of an artefact, for kubectl apply.

    Name and version are those in the artefact. One Pod of each version is on a base, and updates leave no gap.
    """
    import yaml  # type: ignore[import-untyped]

    from koupleless.artifact.source import read_manifest, source_for
    from koupleless.cli.kube.manifest import Choices, workload_of

    labels = dict(text.split("=", 1) for text in selected if "=" in text)
    if len(labels) != len(selected):
        raise click.UsageError("--select: KEY=VALUE is expected, each key once")
    if everywhere and any(choices[name] for name in ("batches", "has_beta", "confirms", "service_port")):
        raise click.UsageError("--everywhere: a DaemonSet has no batches and no Service; leave --everywhere out")
    module = read_manifest(source_for(artefact)).id
    where = image or artefact.absolute().as_uri()
    chosen = Choices(image=where, base=base, selected=labels, is_everywhere=everywhere, **choices)
    click.echo(yaml.safe_dump(workload_of(module, chosen), sort_keys=False), nl=False)


def look(kubectl: Kubectl, *, namespace: str | None = None, env: str | None = None) -> Overview:
    """Return the cluster as the API server has it now. Raises ``KubectlFailed``."""
    import time
    import urllib.parse
    from concurrent.futures import ThreadPoolExecutor

    from koupleless.cli.kube.overview import Overview
    from koupleless.controller import names

    def read(path: str, *components: str, of_env: bool) -> list[dict[str, Any]]:
        chosen = f"{names.COMPONENT} in ({','.join(components)})" + (f",{names.ENV}={env}" if env and of_env else "")
        found: list[dict[str, Any]] = []
        following = ""
        while True:  # a list of a large cluster comes in parts
            query = {"labelSelector": chosen, "limit": "500", **({"continue": following} if following else {})}
            page = kubectl.read(f"{path}?{urllib.parse.urlencode(query)}", "looking at the cluster")
            found += page.get("items") or ()
            following = page["metadata"].get("continue") or ""
            if not following:
                return found

    leases = f"/apis/coordination.k8s.io/v1/namespaces/{names.LEASES}/leases"
    with ThreadPoolExecutor(3) as threads:
        nodes = threads.submit(read, "/api/v1/nodes", names.VNODE, of_env=True)
        pods = threads.submit(read, "/api/v1/pods", names.MODULE, of_env=False)
        held = threads.submit(read, leases, names.VNODE_LEASE, names.CONTROLLER_LEASE, of_env=True)
        return Overview.of(nodes.result(), pods.result(), held.result(), now=time.time(), namespace=namespace, env=env)
