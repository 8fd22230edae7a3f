"""Several workers on one port: started again when they crash, ended together; `test_rolling.py` replaces them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually

pytestmark = pytest.mark.alone

WORKERS = 2
WAITING = 100  # connections; far more than a worker accepts in a step of its loop
ANSWER_SECONDS = 20.0
RESTARTING = 1012

Serve = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(*arguments: str) -> AbstractContextManager[ServerProcess]:
        workers = ("--workers", str(WORKERS), "--drain-seconds", "4")
        return run_server("--database-url", database_url, "--agent", "echo", *workers, *arguments)

    return start


async def owners(store: PostgresStore) -> set[Any]:
    """The instances that live."""
    rows = await store.select("SELECT instance_id FROM server_instances WHERE stopped_at IS NULL AND reaped_at IS NULL")
    return {row["instance_id"] for row in rows}


# --- one of them


def worker_pids(server: ServerProcess) -> list[int]:
    return [event["pid"] for event in server.log if event["event"] == "worker_started"]


async def test_a_worker_that_crashes_is_started_again(serve: Serve, postgres_store: PostgresStore) -> None:
    """The other one goes on, and closes its rows."""
    with serve() as server:
        first, second = worker_pids(server)
        async with connect(server.url, user="ada") as one, connect(server.url, user="ben") as two:
            assert one.created
            assert two.created
            os.kill(first, signal.SIGKILL)
            crashed = await trio.to_thread.run_sync(server.wait_for, "worker_crashed")
            assert (crashed["pid"], crashed["code"], crashed["again_in_seconds"]) == (first, -9, 0.5)
            again = await trio.to_thread.run_sync(server.wait_for, "worker_started")
            assert again["worker"] == 1
            while (await trio.to_thread.run_sync(server.wait_for, "instance_started"))["worker"] != 1:
                pass
            # Also where it had no session: it is found by its silence then.
            await eventually(lambda: owners(postgres_store), lambda found: len(found) == WORKERS, within=30.0)
        os.kill(second, 0)
        log = await trio.to_thread.run_sync(server.stop_and_read)
        assert server.process.returncode == 0
    assert await owners(postgres_store) == set()
    # Each line of a worker says which one wrote it.
    of_instances = {line["instance_id"]: line["worker"] for line in log if line["event"] == "instance_started"}
    assert sorted(of_instances.values()) == [1, 1, 2]
    for line in log:
        if line["event"] in ("session_started", "session_ended", "instance_stopped"):
            assert line["worker"] == of_instances[line["instance_id"]]


async def test_requests_that_wait_when_all_workers_end_are_answered(serve: Serve) -> None:
    """By whichever worker takes them last: a proxy would not send them to another server a second time."""
    with serve() as server:
        workers = worker_pids(server)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        address = ("127.0.0.1", urlsplit(server.url).port or 0)
        clients = [socket.create_connection(address) for _ in range(WAITING)]
        for each in clients:
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        server.process.terminate()
        await eventually(lambda: signalled(workers), bool)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for each in clients:
            each.settimeout(ANSWER_SECONDS)
            assert each.recv(100).startswith(b"HTTP/1.1 200")
            each.close()
        assert await trio.to_thread.run_sync(server.process.wait) == 0


async def signalled(pids: list[int]) -> bool:
    """Whether each of these processes, which are frozen, has a signal before it."""
    states = [await trio.Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return all(re.search(r"^ShdPnd:\s*0+$", state, re.MULTILINE) is None for state in states)


async def test_workers_end_in_order_when_their_supervisor_is_killed(
    serve: Serve, postgres_store: PostgresStore
) -> None:
    with serve() as server:
        async with connect(server.url, user="ada") as client:
            server.process.kill()
            assert await client.closed() == RESTARTING
        await eventually(lambda: owners(postgres_store), lambda found: not found, within=30.0)
    rows = await postgres_store.select("SELECT end_reason FROM conversation_sessions")
    assert [row["end_reason"] for row in rows] == ["shutdown"]


def test_a_mistake_in_the_settings_is_told_once_with_its_exit_code() -> None:
    command = [sys.executable, "-m", "lastcall", "serve", "--workers", "2", "--tls-cert", "/nowhere/cert.pem"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--tls-" in done.stderr


async def test_whoever_cannot_start_replaces_nobody(serve: Serve, postgres_store: PostgresStore) -> None:
    """The workers go on as they are."""
    with serve() as server:
        before = await owners(postgres_store)
        await postgres_store.select("UPDATE lastcall_schema SET version = version + 1")  # of a newer release
        try:
            server.process.send_signal(signal.SIGHUP)
            assert (await trio.to_thread.run_sync(server.wait_for, "worker_not_replaced"))["code"] == 2
            await trio.to_thread.run_sync(server.wait_for, "workers_not_replaced")
        finally:
            await postgres_store.select("UPDATE lastcall_schema SET version = version - 1")
        assert await owners(postgres_store) == before
        async with connect(server.url, user="ada") as client:
            await client.say("Hello")


# --- the port for operators


async def test_each_worker_has_health_and_metrics_on_a_port_of_its_own(serve: Serve) -> None:
    """Without a key, also where clients need one."""
    first = free_ports(WORKERS)
    with serve("--admin-port", str(first)) as server:
        for number in range(WORKERS):
            with httpx2.Client(base_url=f"http://127.0.0.1:{first + number}") as operator:
                assert operator.get("/healthz").status_code == operator.get("/readyz").status_code == 200
                assert "lastcall_lease_held 1.0" in operator.get("/metrics").text
                assert operator.get("/v1/conversations").status_code == 404
        assert server.url.rpartition(":")[2] != str(first)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first: int = found.getsockname()[1]
        try:
            for number in range(first, first + count):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return first
