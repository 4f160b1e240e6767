"""``arkctl serve``: the flags of a base."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from koupleless.cli.running import is_reloaded
from koupleless.cli.session import say

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@click.command()
@click.argument("app", required=False)
@click.option("--name", help="The name of the base.")
@click.option("--host", help="The address to serve the application on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port of the application.  [default: 8080]")
@click.option("--uds", metavar="PATH", help="A Unix socket to serve on, instead of an address.")
@click.option("--root-path", metavar="P", help="The path below which a proxy has the application.")
@click.option("--proxy-headers/--no-proxy-headers", default=None,
              help="Believe X-Forwarded headers of trusted proxies.  [default: on]")  # fmt: skip
@click.option("--forwarded-allow-ips", metavar="IPS", help="The trusted proxies, or *.  [default: 127.0.0.1]")
@click.option("--ssl-certfile", metavar="FILE", help="A certificate: serve with TLS.")
@click.option("--ssl-keyfile", metavar="FILE", help="The private key of the certificate.")
@click.option("--ssl-ca-certs", metavar="FILE", help="Issuers of certificates that clients have to show.")
@click.option("--reload", is_flag=True, help="Start again whenever a Python file is saved; for development.")
@click.option("--reload-dir", "reload_dirs", multiple=True,
              type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="With --reload: what to watch; repeatable.  [default: here]")  # fmt: skip
@click.option("--arklet-host", help="The address of the ops API.  [default: 127.0.0.1]")
@click.option("--arklet-port", type=int, help="The port of the ops API.  [default: the first free one from 1238]")
@click.option("--arklet-token-file", metavar="FILE", help="A file with the token for callers of the ops API.")
@click.option("--arklet-insecure", is_flag=True, default=None, help="Serve the ops API without a token to everybody.")
@click.option("--controller", "arklet_controller_url", metavar="URL", help="A controller that is told of the base.")
@click.option("--arklet-ssl-certfile", metavar="FILE", help="A certificate: serve the ops API with TLS.")
@click.option("--arklet-ssl-keyfile", metavar="FILE", help="The private key of this certificate.")
@click.option("--arklet-ssl-ca-certs", metavar="FILE", help="Issuers of certificates that callers have to show.")
@click.option("--module", "modules", multiple=True, metavar="PATH", help="A module to start with; repeatable.")
@click.option("--log-dir", metavar="DIR", help="The parent of the logs of modules; - for stderr only.  [default: logs]")
@click.option("--log-level", type=click.Choice(_LEVELS, case_sensitive=False),
              help="The level of the base, and of modules that set none.  [default: info]")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), help="The form of lines.  [default: text]")
@click.option("--log-config", metavar="FILE", help="A configuration of the logging of the base, as for uvicorn.")
@click.option("--access-log/--no-access-log", default=None, help="A line for each request, or none.  [default: on]")
@click.option(
    "--on-broken",
    type=click.Choice(["refuse", "continue"]),
    help="If such a module does not start: do not serve, or serve without it.  [default: refuse]",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where modules are kept over a restart.  [default: by the name of the base]",
)
@click.option("--ephemeral", is_flag=True, default=None, help="Keep no modules over a restart.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The settings file, instead of the project's."
)
@click.option("--workers", type=int, default=1, show_default=True, help="Number of processes; only 1 so far.")
def serve(
    app: str | None, *, modules: tuple[str, ...], config: Path | None, workers: int, reload: bool,
    reload_dirs: tuple[Path, ...], **flags: object,
) -> int:  # fmt: skip
    """Serve an application as a base.

    APP is package.module:attribute, or package.module:factory(); without APP the base is empty. Modules installed
    later are started again with the base, also after a crash.
    """
    from koupleless.cli.serve import run
    from koupleless.settings.base import load_base

    if workers != 1:
        raise click.UsageError("--workers: one process is all there is so far; more are not available yet")
    if flags["state_dir"] and flags["ephemeral"]:
        raise click.UsageError("--state-dir and --ephemeral: nothing is kept with the latter; leave one of them out")
    if flags["state_dir"]:
        flags["ephemeral"] = False  # stronger than the environment and the file
    settings = load_base({**flags, "modules": modules or None}, file=config)
    if reload and not is_reloaded():
        from koupleless.cli.running.reload import serve_again

        # Modules that are unpacked there are no code of the base.
        written = (settings.state_dir, settings.store_dir, settings.data_dir)
        ignored = [path.absolute() for path in written if path is not None]
        return serve_again(sys.argv[1:], reload_dirs, ignored=ignored, say=say)
    return run(app, settings)
