"""``arkctl controller``: the module controller of a Kubernetes cluster."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.controller import Controller
    from koupleless.controller.tunnels.http import HttpTunnel
    from koupleless.controller.tunnels.mqtt.tunnel import MqttTunnel
    from koupleless.controller.tunnels.router import Router
    from koupleless.controller.tunnels.tunnel import Limits
    from koupleless.settings.control import ControlSettings


@click.command()
@click.option("--kubeconfig", metavar="FILE", help="The way to the API server.  [default: that of the Pod]")
@click.option("--env", help="The env of bases and modules.  [default: dev]")
@click.option("--name", help="The name of this controller among others.  [default: the name of the host]")
@click.option("--host", help="The address to hear bases on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port to hear bases on.  [default: 7777]")
@click.option("--probes-port", type=int, help="The port of /healthz, /readyz and /metrics.  [default: 8081]")
@click.option("--token-file", metavar="FILE", help="A file with the token that bases have to show.")
@click.option(
    "--accounts", metavar="NS/NAME,...", help="Service accounts of bases, whose tokens the API server judges."
)
@click.option("--insecure", is_flag=True, default=None, help="Hear everybody without a token.")
@click.option("--ssl-certfile", metavar="FILE", help="A certificate: hear bases over TLS.")
@click.option("--ssl-keyfile", metavar="FILE", help="The private key of the certificate.")
@click.option("--arklet-token-file", metavar="FILE", help="A file with the token for the arklets of bases.")
@click.option(
    "--arklet-secret", metavar="NS/NAME", help="A Secret with the token for each arklet: {identity} is the base."
)
@click.option("--arklet-ca", metavar="FILE", help="Issuers of the certificates of arklets: call them over TLS.")
@click.option("--report-hooks-file", metavar="FILE", help="A file with webhooks for warnings, one in each line.")
@click.option("--http-tunnel/--no-http-tunnel", default=None, help="Hear bases over HTTP, or not.  [default: hear]")
@click.option("--mqtt-broker", metavar="HOST", help="An MQTT broker: hear and call bases through this one, too.")
@click.option("--mqtt-port", type=int, help="The port of the broker.  [default: 1883, or 8883 with TLS]")
@click.option("--mqtt-username", metavar="NAME", help="The name for the broker.")
@click.option("--mqtt-password-file", metavar="FILE", help="A file with the password for the broker.")
@click.option("--mqtt-tls", is_flag=True, default=None, help="Speak TLS with the broker, with the system's trust.")
@click.option("--mqtt-ca-path", metavar="FILE", help="Issuers of the broker's certificate: speak TLS.")
@click.option("--mqtt-client-crt-path", metavar="FILE", help="A certificate shown to the broker.")
@click.option("--mqtt-client-key-path", metavar="FILE", help="The private key of this certificate.")
@click.option("--remove-strays/--keep-strays", default=None,
              help="Remove modules without a Pod, or leave them.  [default: remove]")  # fmt: skip
@click.option("--sync-replicas", is_flag=True, default=None, help="Let Deployments of peers follow the bases.")
@click.option("--kubelet", is_flag=True, default=None, help="Serve the API of a kubelet: kubectl logs, port-forward.")
@click.option("--kubelet-address", metavar="IP", help="Its address for the API server.  [default: POD_IP]")
@click.option("--kubelet-port", type=int, help="Its port.  [default: 10250]")
@click.option("--kubelet-certfile", metavar="FILE", help="Its certificate.  [default: one of the cluster's signer]")
@click.option("--kubelet-keyfile", metavar="FILE", help="The private key of its certificate.")
@click.option("--keep-dead-nodes", is_flag=True, default=None, help="Leave the Node of a dead base, not ready.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The settings file, instead of the project's."
)
def controller(config: Path | None, **flags: object) -> int:
    """Show bases to Kubernetes as Nodes, and modules as Pods.

    Runs until stopped. Bases find the controller by --controller of `arkctl serve`.
    """
    import asyncio

    from koupleless.settings.control import load_control

    settings = load_control(flags, file=config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.core.exceptions import ConfigError
    except ModuleNotFoundError:
        raise SettingsError("the controller needs more libraries: pip install 'koupleless[controller]'") from None
    try:
        found = (
            KubeConfig.from_service_account()
            if settings.kubeconfig is None
            else KubeConfig.from_file(settings.kubeconfig)
        ).get()
    except ConfigError as error:
        raise SettingsError(f"there is no way to an API server ({error}); name a file with --kubeconfig") from None
    if found is None:
        raise SettingsError(f"{settings.kubeconfig} has no current context")
    asyncio.run(_run(found, settings))
    return 0


async def _run(config: SingleConfig, settings: ControlSettings) -> None:
    import contextlib
    import ssl

    from koupleless.certificates import ServerCertificate
    from koupleless.controller.bases.steward import Habits
    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.reviews import TokenReviews
    from koupleless.controller.controller import Choices, Controller
    from koupleless.controller.doors.credentials import SecretCredentials, SharedCredential
    from koupleless.controller.doors.porter import Porter
    from koupleless.controller.doors.tokens import ReadToken
    from koupleless.controller.names import is_env
    from koupleless.controller.running import Door, hear, run
    from koupleless.controller.tunnels.http import HttpTunnel
    from koupleless.controller.tunnels.tunnel import Limits
    from koupleless.controller.vpods.plan import Policy
    from koupleless.controller.watching.webhooks import Receiver, Webhooks

    if not is_env(settings.env):
        raise SettingsError(f"env = {settings.env!r} is no part of a name of a Node: use small letters and digits")
    address = settings.read_kubelet_address()
    habits = Habits(
        env=settings.env,
        policy=Policy(removes_strays=settings.remove_strays, at_once=settings.at_once),
        keeps_dead_nodes=settings.keep_dead_nodes,
        list_every_s=settings.list_every_s,
        health_every_s=settings.health_every_s,
        kubelet_address=address,
        kubelet_port=None if address is None else settings.kubelet_port,
    )
    tls = None
    if settings.ssl_certfile is not None:
        tls = ServerCertificate(settings.ssl_certfile, key=settings.ssl_keyfile).context
    trusted = None if settings.arklet_ca is None else ssl.create_default_context(cafile=settings.arklet_ca)
    receivers = [Receiver.of(address) for address in settings.read_report_hooks()]
    limits = Limits(install_s=settings.install_timeout_s)
    mqtt = _mqtt(settings, limits)
    shared, for_arklets = ReadToken(settings.read_token), ReadToken(settings.read_arklet_token)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(config))  # connections for questions about callers alone
        reviews = TokenReviews(api, [settings.audience]) if settings.accounts else None
        porter = Porter(shared, reviews=reviews, pods=api, accounts=settings.accounts)
        credentials = (
            SharedCredential(for_arklets)
            if settings.arklet_secret is None
            else SecretCredentials(api, settings.arklet_secret, for_arklets)
        )
        http = await stack.enter_async_context(HttpTunnel(credentials, limits=limits, tls=trusted))
        port = settings.port if settings.http_tunnel else None
        door = Door(settings.host, port, settings.probes_port, porter, tls)
        choices = Choices(settings.holder, habits, settings.workers, settings.sync_replicas)
        source = f"koupleless/controller/{settings.env}/{settings.holder}"
        hooks = await stack.enter_async_context(Webhooks(receivers, source=source))
        controller = Controller(config, _router(settings, http, mqtt), choices, report=hooks.report)
        hooks.count_by(controller.figures.report)
        besides = [] if mqtt is None else [hear(controller, mqtt)]
        if address is None:
            await run(controller, door, *besides)
            return
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - in a directory of our own
        with tempfile.TemporaryDirectory(prefix="koupleless-kubelet-", dir=memory) as directory:
            besides.append(_kubelet(controller, api, http, settings, Path(directory)))
            await run(controller, door, *besides)


async def _kubelet(
    controller: Controller, api: Api, bases: HttpTunnel, settings: ControlSettings, directory: Path
) -> None:
    """Serve the API of a kubelet until cancelled."""
    from koupleless.controller.cluster.reviews import TokenReviews
    from koupleless.controller.kubelet.callers import Callers
    from koupleless.controller.kubelet.certificates import Authority, Certificates, Files, Mounted, Requested
    from koupleless.controller.kubelet.kubelet import Kubelet
    from koupleless.controller.kubelet.serving import Listening, serve

    address = settings.read_kubelet_address()
    assert address is not None
    certificates: Certificates = Requested(api, directory, name=settings.holder, address=address)
    if settings.kubelet_certfile is not None:
        certificates = Mounted(Files(settings.kubelet_certfile, settings.kubelet_keyfile))
    await serve(
        Kubelet(controller.whereabouts, bases, Callers(api, TokenReviews(api))),
        Listening(settings.kubelet_host or address, settings.kubelet_port),
        certificates,
        Authority(api, directory, settings.kubelet_client_ca),
    )


def _mqtt(settings: ControlSettings, limits: Limits) -> MqttTunnel | None:
    """Make the tunnel through a broker, if there is one. Raises ``SettingsError``."""
    from koupleless.controller.tunnels.mqtt.broker import PLAIN_PORT, SECURE_PORT, Broker, check_library, tls_of
    from koupleless.controller.tunnels.mqtt.tunnel import MqttTunnel

    if not settings.has_broker or settings.mqtt_broker is None:
        return None
    check_library()
    tls = tls_of(
        settings.mqtt_ca_path,
        settings.mqtt_client_crt_path,
        settings.mqtt_client_key_path,
        is_secure=settings.mqtt_tls,
    )
    settings.read_mqtt_password()
    broker = Broker(
        host=settings.mqtt_broker,
        port=settings.mqtt_port or (PLAIN_PORT if tls is None else SECURE_PORT),
        client_id=f"{settings.mqtt_client_prefix}@@@{settings.holder}",
        username=settings.mqtt_username,
        read_password=settings.read_mqtt_password,
        read_tls=tls,
    )
    return MqttTunnel(broker, settings.env, limits=limits)


def _router(settings: ControlSettings, http: HttpTunnel, mqtt: MqttTunnel | None) -> Router:
    """Make the way to all bases: modules are always visited over HTTP, arklets if the tunnel is on."""
    from koupleless.controller.tunnels.router import Router
    from koupleless.controller.vnodes.base import Way

    ways = {Way.HTTP: http if settings.http_tunnel else None, Way.MQTT: mqtt}
    return Router(http, {way: tunnel for way, tunnel in ways.items() if tunnel is not None})
