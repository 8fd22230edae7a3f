"""Signals to a real process, also while its event loop is stuck, before it is ready, and while nobody reads its log."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import httpx2
import pytest
import trio
import trustme
from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded
from lastcall.runtime.signals import ENDING, signal_name, signals_to_take
from lastcall.runtime.watchdog import EXIT_FORCED, FORCE_MARGIN_SECONDS, FUSE_SECONDS, STUCK_SECONDS
from lastcall.store.postgres import PostgresStore

from tests.support.embedded_data import embedded_data

from ..support.clients import connect
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually

pytestmark = pytest.mark.alone

DRAIN_SECONDS = 20.0
SPARE_SECONDS = 3.0  # for a machine that is busy
EXIT_BY_FUSE = 1  # faulthandler's
AGENTS = "tests.support.scripted_agents"

Serve = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(agent: str = "echo", drain_seconds: float = DRAIN_SECONDS) -> AbstractContextManager[ServerProcess]:
        agent = agent if agent == "echo" else f"{AGENTS}:{agent}"
        return run_server("--database-url", database_url, "--agent", agent, "--drain-seconds", str(drain_seconds))

    return start


async def ended(process: subprocess.Popen[str]) -> tuple[int, float]:
    """The exit code, and how long the exit took in seconds."""
    began = time.monotonic()
    code = await trio.to_thread.run_sync(process.wait)
    return code, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
async def test_a_closed_terminal_ends_it_as_ctrl_c_does(
    number: signal.Signals, serve: Serve, postgres_store: PostgresStore
) -> None:
    with serve() as server, trio.fail_after(30):
        async with connect(server.url) as client:
            await client.say("My name is Ada.")
            server.process.send_signal(number)
            assert await client.closed() == 1012
        code, _ = await ended(server.process)
    assert code == 0
    (row,) = await postgres_store.select("SELECT is_active, end_reason FROM conversation_sessions")
    assert (row["is_active"], row["end_reason"]) == (False, "shutdown")


async def test_all_other_signals_do_no_harm(serve: Serve) -> None:
    others = [number for number in signals_to_take() if number not in ENDING]
    assert {"SIGUSR1", "SIGUSR2", "SIGALRM", "SIGIO", "SIGPWR", "SIGXCPU", "SIGRTMIN+1"} & {
        signal_name(number) for number in others
    }
    with serve() as server, trio.fail_after(30):
        async with connect(server.url) as client:
            for number in [*others, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU]:
                os.kill(server.process.pid, number)
            for _ in others:
                logged = await trio.to_thread.run_sync(server.wait_for, "signal")
                assert logged["does"] == "nothing"
            await client.say("Hello")
        assert server.stop() == 0


async def test_under_nohup_a_closed_terminal_ends_nothing(serve: Serve) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serve() as server, trio.fail_after(30):
            async with connect(server.url) as client:
                server.process.send_signal(signal.SIGHUP)
                server.process.send_signal(signal.SIGUSR1)
                assert (await trio.to_thread.run_sync(server.wait_for, "signal"))["name"] == "SIGUSR1"
                await client.say("Hello")
            assert server.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_with_tls_sighup_is_about_the_certificate(database_url: str, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    files = ("--tls-cert", str(tmp_path / "both.pem"), "--tls-key", str(tmp_path / "both.pem"))
    with run_server("--database-url", database_url, "--agent", "echo", *files) as server:
        server.process.send_signal(signal.SIGHUP)
        await trio.to_thread.run_sync(server.wait_for, "certificate_reloaded")
        (tmp_path / "both.pem").unlink()
        server.process.send_signal(signal.SIGHUP)
        logged = await trio.to_thread.run_sync(server.wait_for, "certificate_not_reloaded")
        assert "both.pem" in logged["error"]
        assert server.stop() == 0


async def test_ctrl_c_passed_on_twice_is_one_wish_to_end(serve: Serve) -> None:
    """By a terminal and a wrapper: the answer that is running is still completed."""
    with serve("Brief") as server, trio.fail_after(30):
        async with connect(server.url) as client:
            await client.say("Hello")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                server.process.send_signal(number)
            done = await client.until("response.done")
            assert done["response"]["status"] == "completed"
        assert (await ended(server.process))[0] == 0


async def block(server: ServerProcess, nursery: trio.Nursery) -> None:
    """Has the loop stuck in the middle of an answer."""
    blocked = trio.Event()

    async def run() -> None:
        async with connect(server.url) as client:
            await client.say("Hello")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            blocked.set()
            await trio.sleep_forever()

    nursery.start_soon(run)
    await blocked.wait()


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["Blocking", "Spinning", "Backtracking", "Hashing"])
async def test_a_second_signal_ends_it_whatever_the_loop_is_stuck_in(agent: str, serve: Serve) -> None:
    with serve(agent) as server, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await block(server, nursery)
            server.process.send_signal(signal.SIGTERM)
            await trio.sleep(STUCK_SECONDS)  # a person's patience
            server.process.send_signal(signal.SIGTERM)
            code, took = await ended(server.process)
            nursery.cancel_scope.cancel()
    assert code == (EXIT_BY_FUSE if agent == "Backtracking" else EXIT_FORCED)
    assert took < STUCK_SECONDS + FUSE_SECONDS + SPARE_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["Blocking", "Backtracking"])
async def test_a_stuck_loop_does_not_exceed_the_budget(agent: str, serve: Serve) -> None:
    with serve(agent, 1.0) as server, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await block(server, nursery)
            server.process.send_signal(signal.SIGTERM)
            code, took = await ended(server.process)
            nursery.cancel_scope.cancel()
        if agent == "Blocking":
            assert server.wait_for("shutdown_forced")["code"] == EXIT_FORCED, "the log is written before the end"
    assert code in (EXIT_FORCED, EXIT_BY_FUSE)
    assert took < 1.0 + FORCE_MARGIN_SECONDS + FUSE_SECONDS + SPARE_SECONDS


async def test_a_stall_is_in_the_log_and_in_the_metrics(serve: Serve) -> None:
    with serve("Stuttering") as server, trio.fail_after(30):
        async with connect(server.url) as client:
            await client.ask("Hello")
        logged = await trio.to_thread.run_sync(server.wait_for, "loop_stalled")
        assert "in block" in logged["stack"]
        await trio.to_thread.run_sync(server.wait_for, "loop_goes_on")
        async with httpx2.AsyncClient(base_url=server.url) as http:
            metrics = (await http.get("/metrics")).text
        assert "lastcall_loop_stalls_total 1.0" in metrics
        assert "lastcall_log_lines_dropped_total 0.0" in metrics
        assert float(found(r'lastcall_loop_lag_seconds_bucket{le="1.0"} (\S+)', metrics)) < float(
            found(r"lastcall_loop_lag_seconds_count (\S+)", metrics)
        )


async def test_a_stopped_process_was_not_stuck(serve: Serve) -> None:
    with serve() as server, trio.fail_after(30):
        server.process.send_signal(signal.SIGSTOP)
        await trio.sleep(2.0)
        server.process.send_signal(signal.SIGCONT)
        async with httpx2.AsyncClient(base_url=server.url) as http:
            metrics = (await http.get("/metrics")).text
        assert "lastcall_loop_stalls_total 0.0" in metrics


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return match[1]


# --- before it is ready -----------------------------------------------------------------------------------------------


def starting(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--agent", "echo", "--log-level", "info"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", ENDING)
async def test_a_start_that_waits_for_the_database_ends_at_once(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        with starting("--database-url", url) as server, trio.fail_after(30):
            connection, _ = await trio.to_thread.run_sync(silent.accept)
            with connection:
                server.send_signal(number)
                code, took = await ended(server)
            assert (server.stdout and server.stdout.read()) == "", "not ready"
    assert code == 0
    assert took < SPARE_SECONDS


@pytest.mark.parametrize("wait_for", ["postgresql.lock", "postgresql/postmaster.pid"])
async def test_a_start_of_the_embedded_database_leaves_nothing_behind(wait_for: str, data_dir: Path) -> None:
    with starting("--data-dir", str(data_dir)) as server, trio.fail_after(60):
        await eventually(trio.Path(embedded.place(data_dir).directory / wait_for).exists, bool, within=30)
        server.send_signal(signal.SIGTERM)
        code, _ = await ended(server)
    assert code == 0
    assert cluster.find(embedded.place(data_dir).cluster) is None


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with embedded_data() as directory:
        yield directory


def test_a_signal_during_the_imports_just_ends_it(tmp_path: Path) -> None:
    for milliseconds in range(150, 1_000, 150):
        with starting("--data-dir", str(tmp_path / "data")) as server:
            time.sleep(milliseconds / 1_000)
            server.send_signal(signal.SIGUSR1)
            server.send_signal(signal.SIGTERM)
            code = server.wait(30)
            assert "Traceback" not in (server.stderr.read() if server.stderr else "")
        assert code in (0, -signal.SIGTERM, -signal.SIGUSR1), "the latter two before Python runs our code"


# --- while nobody reads the log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["echo", f"{AGENTS}:Printing"])
async def test_a_log_that_nobody_reads_holds_up_nobody(agent: str, database_url: str) -> None:
    """And what was printed reaches who reads again, with a word about what is missing."""
    with starting_unread("--database-url", database_url, "--agent", agent) as (server, pipe, url):
        with trio.fail_after(60):
            async with connect(url) as client:
                for _ in range(30):
                    began = time.monotonic()
                    await client.ask("Hello")
                    assert time.monotonic() - began < 1.0 + SPARE_SECONDS
            for _ in range(100):
                async with connect(url, user="\U0001f4a5" * 40):
                    pass
            server.send_signal(signal.SIGTERM)
            code, took = await ended(server)
        assert code == 0
        assert took < 5.0 + SPARE_SECONDS
        assert pipe.readline()


@contextmanager
def starting_unread(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], str]]:
    """A server whose output is read up to its ready line."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--json-logs", "--log-level", "debug"]
    server = subprocess.Popen([*command, *arguments], stdout=write_end, stderr=write_end, text=True)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        try:
            line = next(line for line in pipe if '"ready"' in line)
            yield server, pipe, found(r'"url": "([^"]+)"', line)
        finally:
            server.kill()
            server.wait()
