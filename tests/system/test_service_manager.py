"""What systemd hears from a server, and the sockets that it hands over; and what a load balancer sees of a shutdown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import trio
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.processes import ServerProcess, run_server

pytestmark = pytest.mark.alone

HEAR_SECONDS = 30.0
WATCHDOG_SECONDS = 0.9  # three heartbeats of the loop
SILENCE_SECONDS = 2.0
BLOCKING = "tests.support.scripted_agents:Blocking"


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(HEAR_SECONDS)
        self.heard: list[str] = []

    def hear(self, wanted: str) -> list[str]:
        """Receives until a message with this line; returns all lines heard meanwhile."""
        lines: list[str] = []
        while wanted not in lines:
            lines += self.socket.recv(4096).decode().split("\n")
        return lines

    def is_silent(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(HEAR_SECONDS)
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[Manager, str]]:
    with tempfile.TemporaryDirectory(prefix="lastcall-") as folder:
        path = f"{folder}/notify"
        shown, bound = (path, path) if request.param == "path" else (f"@{path}", f"\0{path}")
        if request.param == "abstract" and sys.platform != "linux":
            pytest.skip("only Linux has abstract sockets")
        heard = Manager(bound)
        yield heard, shown
        heard.socket.close()


def environment(path: str) -> dict[str, str]:
    microseconds = str(int(WATCHDOG_SECONDS * 1_000_000))
    return {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": microseconds}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_hears_when_it_is_ready_alive_and_stopping(
    workers: str, manager: tuple[Manager, str], database_url: str
) -> None:
    heard, path = manager
    options = ("--database-url", database_url, "--agent", "echo", "--workers", workers)
    with run_server(*options, env=environment(path)) as server:
        assert any(line.startswith("STATUS=") for line in heard.hear("READY=1"))
        for _ in range(3):
            heard.hear("WATCHDOG=1")
        server.process.send_signal(signal.SIGTERM)
        heard.hear("STOPPING=1")


async def test_a_stuck_loop_is_not_alive(database_url: str, tmp_path: Path) -> None:
    heard = Manager(str(tmp_path / "notify"))
    options = ("--database-url", database_url, "--agent", BLOCKING, "--drain-seconds", "1")
    with run_server(*options, env=environment(str(tmp_path / "notify"))) as server:
        await trio.to_thread.run_sync(heard.hear, "WATCHDOG=1")
        async with connect(server.url, user="ada") as client:
            await client.say("Hello")
            await client.send({"type": "response.create"})
            await trio.to_thread.run_sync(server.wait_for, "loop_stalled")
            while not heard.is_silent(0.01):  # what it told before
                pass
            assert heard.is_silent(SILENCE_SECONDS)
            server.process.kill()
    heard.socket.close()


# --- sockets that are handed over


@contextmanager
def activated(
    database_url: str, host: str = "127.0.0.1", *arguments: str, names: str = ""
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server as systemd starts it on the first connection: with a socket that listens already, as descriptor 3."""
    with socket.create_server((host, 0)) as listening:
        script = 'import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ["LISTEN_PID"] = str(os.getpid())\n'
        script += 'os.execv(sys.executable, [sys.executable, "-m", "lastcall", *sys.argv[2:]])'
        command = [sys.executable, "-c", script, str(listening.fileno()), "serve", "--json-logs", "--agent", "echo"]
        command += ["--database-url", database_url, *arguments]
        # Somebody connects before it runs.
        environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": names}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            pass_fds=[listening.fileno()],
        )
        try:
            yield process, listening.getsockname()[1]
        finally:
            process.terminate()
            process.communicate()


def test_whoever_connects_before_it_runs_is_served(database_url: str) -> None:
    with activated(database_url) as (process, port), httpx2.Client(timeout=HEAR_SECONDS) as early:
        assert early.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert process.poll() is None


def test_a_socket_that_strangers_reach_needs_keys_whatever_host_says(database_url: str) -> None:
    with activated(database_url, "0.0.0.0") as (process, _):
        _, told = process.communicate(timeout=HEAR_SECONDS)
        assert process.returncode == 2
        assert "keys" in told


def test_a_socket_named_admin_is_the_port_for_operators(database_url: str) -> None:
    with activated(database_url, "127.0.0.1", "--port", "0", names="admin") as (_, port):
        assert "lastcall_lease_held 1.0" in httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=HEAR_SECONDS).text
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/conversations").status_code == 404


def test_sockets_of_another_process_are_left_alone(database_url: str) -> None:
    """Their variables are inherited by every program that somebody starts from a service."""
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    with run_server("--database-url", database_url, "--agent", "echo", env=environ) as server:
        assert server.stop() == 0


# --- drain delay


async def test_in_the_drain_delay_it_says_draining_and_serves_as_before(
    database_url: str, postgres_store: PostgresStore
) -> None:
    """A second signal cuts it short."""
    options = ("--database-url", database_url, "--agent", "echo", "--drain-delay", "60", "--drain-seconds", "2")
    with run_server(*options) as server, httpx2.Client(base_url=server.url) as balancer:
        async with connect(server.url, user="ada") as going:
            assert balancer.get("/readyz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            await trio.to_thread.run_sync(phase, server, "drain_delay")
            answer = balancer.get("/readyz")
            assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
            await going.ask("Still there?")
            async with connect(server.url, user="ben") as late:
                await late.ask("Hello")
            await trio.to_thread.run_sync(server.hurry)
            await trio.to_thread.run_sync(phase, server, "stop_accepting")
            assert await going.closed() == 1012
        assert await trio.to_thread.run_sync(server.process.wait) == 0


def phase(server: ServerProcess, name: str) -> None:
    while server.wait_for("shutdown_phase")["phase"] != name:
        pass
