"""A stand-in for systemd: starts, restarts and ends what unit files say, and waits until it is ready."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

READY_SECONDS = 60.0
END_SECONDS = 30.0
LOOK_SECONDS = 0.02
REQUEST_BYTES_MAX = 4_096
LOG_CHARS_MAX = 2_000
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"

CLIENT = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as to_manager:
    to_manager.connect("{address}")
    to_manager.sendall(json.dumps(sys.argv[1:]).encode())
    to_manager.shutdown(socket.SHUT_WR)
    said = to_manager.makefile().read()
sys.exit(said or 0)
"""


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    log: Path


class UnitManager:
    """Manages what is installed below `root`; the units of nginx and PgBouncer come with their packages.

    database_owner: the user who may enter the folder of the database's socket; PgBouncer runs as that one.
    """

    def __init__(self, root: Path, database_owner: int) -> None:
        self._root = root
        self.database_owner = database_owner
        self.address = root / "manager"
        self._services: dict[str, Service] = {}
        self.started: list[str] = []

    def do(self, words: list[str]) -> str:
        """One `systemctl` command; what went wrong, or nothing."""
        verb, *names = [word for word in words if not word.startswith("--")]
        for name in names:
            if verb == "restart":
                self._end(name)
            if verb in ("enable", "start", "restart") and (wrong := self._start(name)):
                return wrong
        known = verb in ("enable", "start", "restart", "daemon-reload")
        return "" if known else f"systemctl {verb} is not known here"

    def _start(self, name: str) -> str:
        log = self._root / "log" / f"{name}.log"
        notify = self._root / "run" / f"{name}.notify"
        command, notifies = self._command(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, log.open("ab") as output:
            notify.unlink(missing_ok=True)
            heard.bind(str(notify))
            notify.chmod(0o666)  # a service may run as another user
            heard.settimeout(READY_SECONDS)
            environment = {"PATH": PATH, "NOTIFY_SOCKET": str(notify)}
            user = self.database_owner if name == "pgbouncer" and os.geteuid() == 0 else None
            home = self._root / "var" / "lib" / "lastcall"
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=home, user=user)
            self._services[name] = Service(process, log)
            self.started.append(name)
            is_ready = _hears_readiness(heard) if notifies else _listens(process)
        return "" if is_ready else f"{name} is not ready: {log.read_text()[-LOG_CHARS_MAX:]}"

    def _command(self, name: str) -> tuple[list[str], bool]:
        """What to run, and whether it tells when it is ready."""
        if name == "nginx":
            return [
                _program("nginx"),
                "-e",
                "stderr",
                "-c",
                str(self._root / "etc/nginx/nginx.conf"),
                "-g",
                "daemon off;",
            ], False
        if name == "pgbouncer":
            return [_program("pgbouncer"), str(self._root / "etc/pgbouncer/pgbouncer.ini")], False
        template, _, instance = name.partition("@")
        parser = ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        assert parser.read(self._root / "etc/systemd/system" / f"{template}@.service")
        service = parser["Service"]
        return shlex.split(service["ExecStart"].replace("%i", instance)), service["Type"] == "notify"

    def _end(self, name: str) -> None:
        if name in self._services:
            process = self._services.pop(name).process
            process.send_signal(signal.SIGTERM)
            code = process.wait(END_SECONDS)
            assert code == 0 or not name.startswith("lastcall"), (name, code)

    def logs(self) -> str:
        """The end of each service's log."""
        return "\n".join(f"{name}: {each.log.read_text()[-LOG_CHARS_MAX:]}" for name, each in self._services.items())

    def end_all(self) -> None:
        """Ends servers first: without a pooler before their database, each would wait for it."""
        for name in sorted(self._services, key=lambda name: not name.startswith("lastcall")):
            process = self._services.pop(name).process
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _hears_readiness(heard: socket.socket) -> bool:
    """Until it says so. Its end closes no socket here: only silence tells."""
    try:
        while "READY=1" not in heard.recv(REQUEST_BYTES_MAX).decode().split("\n"):
            pass
    except TimeoutError:
        return False
    return True


def _listens(process: subprocess.Popen[bytes]) -> bool:
    """Until clients can connect, as after a start by systemd: such programs become ready before they fork."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        found = psutil.Process(process.pid).net_connections(kind="tcp")
        if any(each.status == psutil.CONN_LISTEN for each in found):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found is not None, f"there is no {name} here"
    return found


@contextmanager
def run_unit_manager(root: Path, database_owner: int) -> Iterator[UnitManager]:
    """Takes commands on its socket for as long as the block lasts, one at a time."""
    manager = UnitManager(root, database_owner)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(manager.address))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                asked, _ = listening.accept()
            except OSError:  # it is over
                return
            with asked:
                words = json.loads(asked.makefile().read())
                try:
                    said = manager.do(words)
                except Exception as error:  # noqa: BLE001 - told to whoever asked
                    said = repr(error)
                asked.sendall(said.encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield manager
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        manager.end_all()
