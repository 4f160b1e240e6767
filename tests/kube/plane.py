"""One control plane of Kubernetes on loopback, for all processes of a test run: a process of its own, and a way to it.

`hold` starts the process unless it runs, waits until the control plane is ready, and returns a `Hold`. The process
ends, and the control plane with it, when the last hold is gone: each is a connection that the kernel closes, however
its owner ended. The programs die with the process, by a signal of the kernel. `scripts/kube` runs this file alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __name__ == "__main__":  # with -P, which keeps the names of files here from hiding the standard library's
    sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_READY_S: Final = 120
"""The time for a start on a machine that is busy with other tests."""
_FIRST_HOLD_S: Final = 60
_END_S: Final = 10
_USERS: Final = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "stranger": "",
}
"""Users with a token of their own, each with a group; rights of the others come from RBAC."""


@dataclass(frozen=True)
class Access:
    """The way to a control plane: its address, its authority, and a token for each user."""

    url: str
    authority: str
    authority_key: str
    kubeconfig: str
    tokens: Mapping[str, str]

    def kubeconfig_of(self, user: str, token: str | None = None, *, namespace: str = "default") -> dict[str, object]:
        """A kubeconfig for ``user``; ``token`` is for users that are not in `tokens`."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user, "namespace": namespace}}],
            "clusters": [{"name": "tests", "cluster": {"server": self.url, "certificate-authority": self.authority}}],
            "users": [{"name": user, "user": {"token": token or self.tokens[user]}}],
        }


class NotStarted(Exception):
    """The control plane did not become ready; the text has the last lines of the logs."""


# --- for those who use a control plane -------------------------------------------------------------------------------


class Hold:
    """A use of the control plane. Lifetime: until `release`, or the end of the process."""

    def __init__(self, connection: socket.socket, access: Access) -> None:
        self.access = access
        self._connection = connection

    def release(self) -> None:
        self._connection.close()

    def restart(self, program: str) -> None:
        """Kill one of the programs, and start it again at the same place: others that use it are disturbed."""
        self._connection.sendall(f"restart {program}\n".encode())
        with self._connection.makefile("r", encoding="utf-8") as lines:
            answer = lines.readline()
        if answer != "restarted\n":
            raise NotStarted(answer)


def hold(directory: Path, programs: Path) -> Hold:
    """Use the control plane of ``directory``, which is started by the first that asks. Raises `NotStarted`."""
    with directory.joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that one process is started, and it listens before the next one asks
        connection = _connected(directory)
        if connection is None:
            _spawn(directory, programs)
            connection = _connected(directory, within_s=_END_S)
    if connection is None:
        raise NotStarted(_tails(directory))
    answer = ""
    with contextlib.suppress(ConnectionError), connection.makefile("r", encoding="utf-8") as lines:
        answer = lines.readline()
    if not answer:
        connection.close()
        raise NotStarted(_tails(directory))
    return Hold(connection, Access(**json.loads(answer)))


def _address(directory: Path) -> str:
    """A name that leaves no file behind, and is as long for every directory."""
    return f"\0koupleless-kube-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:32]}"


def _connected(directory: Path, *, within_s: float = 0) -> socket.socket | None:
    ends = time.monotonic() + within_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(_address(directory))
        except OSError:
            connection.close()
        else:
            connection.settimeout(_READY_S + _END_S)
            return connection
        if time.monotonic() >= ends:
            return None
        time.sleep(0.01)


def _spawn(directory: Path, programs: Path, *options: str) -> None:
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "serve", "--directory", str(directory)]
    with directory.joinpath("plane.log").open("ab") as log:
        subprocess.run(  # ends at once, and leaves the process to the system
            [*command, "--programs", str(programs), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # an interrupt of the tests is not its own
            check=True,
        )


def _tails(directory: Path) -> str:
    logs = sorted(directory.glob("*.log"))
    return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs) or "nothing was logged"


# --- the process -----------------------------------------------------------------------------------------------------


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has: below those that the system gives to connections, and those of `tests.conftest`."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 15_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return [*found]


class Plane:
    """The four programs, with their files below one directory. Lifetime: from `start` to `end`, once."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self._directory = directory
        self._files = directory / "files"
        self._programs = programs
        self._commands: dict[str, list[str]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        etcd, peers, secure = _free_ports(3)
        self._ports = etcd, peers
        self.access = Access(
            url=f"https://127.0.0.1:{secure}",
            authority=str(self._files / "ca.crt"),
            authority_key=str(self._files / "ca.key"),
            kubeconfig=str(directory / "kubeconfig"),
            tokens={user: secrets.token_hex(16) for user in _USERS},
        )

    def start(self) -> None:
        """Start all four, and return once pods can be made and are scheduled. Raises `NotStarted`."""
        shutil.rmtree(self._files, ignore_errors=True)  # of a control plane that was killed
        self._files.mkdir(parents=True)
        etcd, peers = self._ports
        access = self.access
        authority = Authority(self._files)
        self._write_access(access)
        self._run(
            "etcd",
            f"--data-dir={self._files}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",  # nothing outlives the run
            "--log-level=error",
        )
        self._run_api_server(authority)
        self._until(access, "/readyz")
        self._run(
            "kube-controller-manager",
            *self._as_user("system:kube-controller-manager"),
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self._files}/accounts.key",
            f"--root-ca-file={authority.certificate}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
        )
        self._run("kube-scheduler", *self._as_user("system:kube-scheduler"))
        self._until(access, "/api/v1/namespaces/default/serviceaccounts/default")

    def end(self) -> None:
        """End the programs, the last first, and remove their files."""
        for program in reversed(self._running.values()):
            program.kill()  # nothing is to be kept, and etcd would take its time
            program.wait()
        shutil.rmtree(self._files, ignore_errors=True)
        self._directory.joinpath("kubeconfig").unlink(missing_ok=True)

    def restart(self, name: str) -> None:
        """Kill a program, start it again, and return once the API server answers."""
        self._running[name].kill()
        self._running[name].wait()
        self._launch(name)
        self._until(self.access, "/readyz")

    def ended(self) -> list[str]:
        """The programs that run no more."""
        return [name for name, program in self._running.items() if program.poll() is not None]

    def _run_api_server(self, authority: Authority) -> None:
        served = authority.issue("kube-apiserver", addresses="IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc")
        kubelets = authority.issue("kube-apiserver-kubelet-client", organization="system:masters")
        accounts = authority.issue("accounts")
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._ports[0]}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.access.url.rpartition(':')[2]}",
            f"--tls-cert-file={served.certificate}",
            f"--tls-private-key-file={served.key}",
            f"--client-ca-file={authority.certificate}",
            f"--token-auth-file={self._files}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            f"--kubelet-client-certificate={kubelets.certificate}",
            f"--kubelet-client-key={kubelets.key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--endpoint-reconciler-type=none",  # a loopback address is no endpoint of a Service
        )

    def _write_access(self, access: Access) -> None:
        rows = [f'{token},{user},{user},"{_USERS[user]}"' for user, token in access.tokens.items()]
        self._files.joinpath("tokens.csv").write_text("\n".join(rows), encoding="utf-8")
        for user in _USERS:
            path = Path(access.kubeconfig) if user == "admin" else self._kubeconfig_of(user)
            path.write_text(json.dumps(access.kubeconfig_of(user)), encoding="utf-8")

    def _kubeconfig_of(self, user: str) -> Path:
        return self._files / f"{user.rpartition(':')[2]}.kubeconfig"

    def _as_user(self, user: str) -> Sequence[str]:
        return [f"--kubeconfig={self._kubeconfig_of(user)}", "--leader-elect=false", "--secure-port=0"]

    def _run(self, name: str, *options: str) -> None:
        self._commands[name] = ["setpriv", "--pdeathsig", "KILL", "--", str(self._programs / name), *options]
        self._launch(name)

    def _launch(self, name: str) -> None:
        with self._directory.joinpath(f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _until(self, access: Access, path: str) -> None:
        """Wait until the API server answers 200 for ``path``."""
        trusted = ssl.create_default_context(cafile=access.authority)
        request = urllib.request.Request(f"{access.url}{path}")
        request.add_header("Authorization", f"Bearer {access.tokens['admin']}")
        ends = time.monotonic() + _READY_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5, context=trusted):
                    return
            except (OSError, urllib.error.URLError):
                if self.ended() or time.monotonic() > ends:
                    raise NotStarted(f"{path} was not there; programs that ended: {self.ended()}") from None
                time.sleep(0.05)


def serve(directory: Path, programs: Path, *, is_kept: bool) -> None:
    """Run a control plane until the last hold is gone, or until asked to stop if ``is_kept``."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(_address(directory))
        listening.listen(64)
        plane = Plane(directory, programs)
        holds: set[socket.socket] = set()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(0))
        try:
            plane.start()
            _answer(listening, plane, holds, is_kept=is_kept)
        finally:
            listening.close()  # who comes from now on starts another one
            plane.end()
            for one in holds:  # who has asked for the end sees it now
                one.close()


def _answer(listening: socket.socket, plane: Plane, holds: set[socket.socket], *, is_kept: bool) -> None:
    """Tell everybody who connects the way to the control plane, until nobody is connected any more."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(listening, selectors.EVENT_READ)
        was_held = False
        while is_kept or holds or not was_held:
            found = waiting.select(None if is_kept or was_held else _FIRST_HOLD_S)
            if not found:
                return
            for key, _ in found:
                one = key.fileobj
                if one is listening:
                    connection, _ = listening.accept()
                    with contextlib.suppress(OSError):
                        connection.sendall(f"{json.dumps(asdict(plane.access))}\n".encode())
                    waiting.register(connection, selectors.EVENT_READ)
                    holds.add(connection)
                    was_held = True
                    continue
                assert isinstance(one, socket.socket)
                try:
                    said = one.recv(64)
                except OSError:
                    said = b""
                if said == b"stop":
                    return
                if said:
                    _restart(plane, said, one)
                    continue
                waiting.unregister(one)
                holds.discard(one)
                one.close()


def _restart(plane: Plane, said: bytes, asking: socket.socket) -> None:
    try:
        plane.restart(said.decode().removeprefix("restart ").strip())
        answer = "restarted"
    except (NotStarted, KeyError) as error:
        answer = f"not restarted: {error!r}"
    with contextlib.suppress(OSError):
        asking.sendall(f"{answer}\n".encode())


# --- by hand ---------------------------------------------------------------------------------------------------------


def _main() -> int:
    parser = argparse.ArgumentParser(description="A control plane of Kubernetes on loopback.")
    parser.add_argument("command", choices=["serve", "start", "stop"])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--programs", type=Path)
    parser.add_argument("--keep", action="store_true", help="serve until asked to stop")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    if given.command == "serve":
        if os.fork():
            os._exit(0)
        serve(given.directory, given.programs, is_kept=given.keep)
    elif given.command == "start":
        if (running := _connected(given.directory)) is None:
            _spawn(given.directory, given.programs, "--keep")
            running = _connected(given.directory, within_s=_END_S)
        if running is None or not running.recv(1):
            print(_tails(given.directory), file=sys.stderr)
            return 1
        running.close()
        print(f"export KUBECONFIG={given.directory / 'kubeconfig'}")
    elif (running := _connected(given.directory)) is not None:
        running.sendall(b"stop")
        running.settimeout(_READY_S)
        while running.recv(4096):  # closed when all has ended
            pass
    return 0


if __name__ == "__main__":
    sys.exit(_main())
