"""``kubectl`` as a program: objects as JSON, files into containers, and ports of Pods on the loopback address."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from koupleless.cli.showing.suggestions import KubectlFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FORWARD_S: Final = 30.0
_END_S: Final = 5.0
_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A port of a Pod on the loopback address of this machine."""

    port: int
    _log: IO[bytes]

    def said(self) -> str:
        """Return the last complaint of ``kubectl``; empty without one."""
        self._log.seek(0)
        return _last_line(self._log.read().decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Kubectl:
    """``kubectl`` with the choices of a user. Threads: any number may call at once."""

    kubeconfig: Path | None = None
    context: str | None = None
    """``None`` means the choice of ``kubectl``, for the kubeconfig, too."""

    def command(self, *arguments: str) -> list[str]:
        """Return a command with the choices of the user."""
        chosen = [] if self.kubeconfig is None else ["--kubeconfig", str(self.kubeconfig)]
        chosen += [] if self.context is None else ["--context", self.context]
        return ["kubectl", *chosen, *arguments]

    def read(self, path: str, doing: str) -> dict[str, Any]:
        """Return the object, or the list of objects, at a path of the API server. Raises `KubectlFailed`."""
        said = self.run(doing, "get", "--raw", path)
        try:
            found = json.loads(said)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise KubectlFailed(doing, f"kubectl get --raw {path} gives no JSON object")
        return found

    def namespace(self) -> str:
        """Return the namespace of the context. Raises `KubectlFailed`."""
        shown = self.run("reading the context", "config", "view", "--minify", "-o", "jsonpath={..namespace}")
        return shown.decode().strip() or "default"

    def run(self, doing: str, *arguments: str, source: IO[bytes] | None = None) -> bytes:
        """Run ``kubectl``, and return the output. Raises `KubectlFailed`, with ``doing`` in the text."""
        try:
            done = subprocess.run(  # noqa: S603 - the arguments are a list
                self.command(*arguments),
                stdin=subprocess.DEVNULL if source is None else source,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise _absent(doing) from None
        if done.returncode:
            raise KubectlFailed(doing, _last_line(done.stderr.decode(errors="replace")) or f"status {done.returncode}")
        return done.stdout

    @contextlib.contextmanager
    def forwarded(self, namespace: str, pod: str, port: int) -> Iterator[Forwarding]:
        """Hold a port of a Pod on the loopback address while the context lasts. Raises `KubectlFailed`.

        An interrupt of the terminal does not reach this ``kubectl``: the command may have to tell the base.
        """
        doing = f"reaching port {port} of Pod {namespace}/{pod}"
        arguments = ("-n", namespace, "port-forward", "--address", "127.0.0.1", f"pod/{pod}", f":{port}")
        with tempfile.TemporaryFile() as log:
            try:
                process = subprocess.Popen(  # noqa: S603 - the arguments are a list
                    self.command(*arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread
                )
            except FileNotFoundError:
                raise _absent(doing) from None
            reader = _Announced(process)
            try:
                found = reader.port(_FORWARD_S)
                forwarding = Forwarding(found or 0, log)
                if found is None:
                    raise KubectlFailed(doing, forwarding.said() or f"no port within {_FORWARD_S:g} s")
                yield forwarding
            finally:
                process.terminate()
                try:
                    process.wait(_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                reader.close()

    def copy_into(self, file: Path, namespace: str, pod: str, target: str, *, container: str | None = None) -> None:
        """Copy a file into a container, which needs ``sh``, ``cat`` and ``wc``. Raises `KubectlFailed`."""
        script = 'umask 077 && mkdir -p "${0%/*}" && cat >"$0" && wc -c <"$0"'
        doing = f"copying {file.name} into Pod {namespace}/{pod}"
        with file.open("rb") as source:
            command = ["sh", "-c", script, target]
            counted = self._execute(doing, namespace, pod, container, command, source=source)
        size = file.stat().st_size
        if counted.strip() != str(size).encode():  # kubectl may lose the end of its input with a connection
            arrived = counted.decode(errors="replace").strip()
            raise KubectlFailed(doing, f"{arrived} of {size} bytes arrived")

    def remove_from(self, namespace: str, pod: str, target: str, *, container: str | None = None) -> None:
        """Remove a file or directory of a container. Raises `KubectlFailed`."""
        self._execute(f"removing {target} of Pod {namespace}/{pod}", namespace, pod, container, ["rm", "-rf", target])

    def _execute(
        self,
        doing: str,
        namespace: str,
        pod: str,
        container: str | None,
        command: Sequence[str],
        *,
        source: IO[bytes] | None = None,
    ) -> bytes:
        chosen = [] if container is None else ["-c", container]
        return self.run(doing, "-n", namespace, "exec", "-i", pod, *chosen, "--", *command, source=source)


class _Announced:
    """The output of ``kubectl port-forward``: read to the end, so that ``kubectl`` never waits for a reader."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._output = process.stdout
        self._port: int | None = None
        self._is_told = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._output:
            address, arrow, _ = line.decode(errors="replace").removeprefix("Forwarding from ").partition(" -> ")
            if arrow and self._port is None:
                self._port = int(address.rpartition(":")[2])
                self._is_told.set()
        self._is_told.set()

    def port(self, within_s: float) -> int | None:
        """Return the local port; ``None`` if ``kubectl`` ended, or named none in time."""
        self._is_told.wait(within_s)
        return self._port

    def close(self) -> None:
        self._thread.join(_END_S)
        self._output.close()


def _die_with_parent() -> None:
    """Let the kernel end a child together with this process, however this process ends."""
    import ctypes  # noqa: PLC0415 - for forwarded ports alone

    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)


def _absent(doing: str) -> KubectlFailed:
    return KubectlFailed(doing, "kubectl is not on the PATH; https://kubernetes.io/docs/tasks/tools has it")


def _last_line(text: str) -> str:
    """Return the last line that is not blank, without the word for an error."""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return line.removeprefix("error: ")
