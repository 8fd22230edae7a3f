"""One run: a real server with an embedded PostgreSQL, the healthy clients, the attack, and the measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..starvation import Failed, Family, Heartbeat, RunQueue, Starvation, TimedOut, timeouts_judged
from .healthy_clients import Tally, chat

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SETTLE_SECONDS = 60.0  # for the server to disconnect the last bad peer
LOOK_SECONDS = 0.5
WARM_UP_SECONDS = 3.0  # of healthy turns alone, before the attack
DRAIN_SECONDS = 10.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1_048_576
# The bad peers share 49 addresses of this machine, so the limits per address are set for that.
ADDRESS_LIMITS = ("--address-connections-max", "100", "--address-connections-per-second", "50")


@dataclass
class HostileRun:
    """The findings of one run.

    rss: of the server process in MiB, from the start of the attack on. exit_code: after the final SIGTERM.
    """

    tally: Tally = field(default_factory=Tally)
    rss: list[float] = field(default_factory=list)
    rss_before: float = 0.0
    pid: int = 0
    pid_after: int = 0
    orphans: int = -1
    active_after: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    log: str = ""
    exit_code: int = -1
    attack_began: float = 0.0
    attack_seconds: float = 0.0
    starvation: Starvation = field(default_factory=Starvation)


async def run_hostile(directory: Path, options: dict[str, Any], phase: Callable[[str, HostileRun], None]) -> HostileRun:
    """Runs from the server's start to its exit. options: seconds, inputs, seed, clients."""
    run = HostileRun()
    with timeouts_judged(run.starvation):
        async with trio.open_nursery() as measuring:
            _measure_starvation(run, directory, measuring)
            await _run(run, directory, options, phase)
            measuring.cancel_scope.cancel()
    return run


def _measure_starvation(run: HostileRun, directory: Path, measuring: trio.Nursery) -> None:
    postmaster, database = directory / "data" / "postgresql" / "postmaster.pid", Family()

    def processes() -> dict[int, str]:
        servers = {run.pid: "server"} if run.pid else {}
        with suppress(OSError, ValueError, IndexError):
            servers |= dict.fromkeys(database.of(int(postmaster.read_text().splitlines()[0])), "database")
        return servers

    measuring.start_soon(Heartbeat(partial(run.starvation.record, "runner")).run)
    measuring.start_soon(RunQueue(run.starvation, processes).run)


async def _run(
    run: HostileRun, directory: Path, options: dict[str, Any], phase: Callable[[str, HostileRun], None]
) -> None:
    log = directory / "server.log"
    phase("starting", run)
    async with serving(directory, log) as (process, url):
        run.pid = process.pid
        await _attack_and_chat(run, process.pid, url, options, phase)
        run.pid_after = process.pid if process.poll() is None else 0
        phase("stopping", run)
        run.orphans = await _orphans(directory)
        process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
        run.exit_code = process.returncode if process.returncode is not None else -1
    run.log = _read(log)


@asynccontextmanager
async def serving(directory: Path, log: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """Runs `lastcall serve` with its most verbose log. The process is ended by its id."""
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--json-logs", "--log-level", "debug"]
    command += ["--agent", "echo", "--data-dir", str(directory / "data"), *ADDRESS_LIMITS]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield process, await _url(process, log)
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.terminate()
                with trio.move_on_after(STOP_SECONDS):
                    await process.wait()
                if process.poll() is None:
                    process.kill()
                    await process.wait()


async def _url(process: trio.Process, log: Path) -> str:
    began = time.time()
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            for line in _read(log).splitlines():
                if '"ready"' in line:
                    return str(json.loads(line)["url"])
            await trio.sleep(LOOK_SECONDS)
    if process.poll() is None:
        raise TimedOut(f"the server did not become ready within {START_SECONDS:.0f} s", began)
    raise Failed(f"the server did not start: {_read(log)[-300:]}")


async def _attack_and_chat(
    run: HostileRun, pid: int, url: str, options: dict[str, Any], phase: Callable[[str, HostileRun], None]
) -> None:
    port, leave = int(url.rpartition(":")[2]), trio.Event()
    async with trio.open_nursery() as healthy:
        for number in range(options["clients"]):
            healthy.start_soon(chat, url, number, run.tally, leave)
        phase("warming up", run)
        await trio.sleep(WARM_UP_SECONDS)
        run.rss_before = rss_mib(pid)
        run.tally.turns.clear()
        phase("attacking", run)
        run.attack_began, began = time.time(), trio.current_time()
        async with trio.open_nursery() as watching:
            watching.start_soon(_watch, run, pid)
            await _attack(run, port, options)
            run.attack_seconds = trio.current_time() - began
            watching.cancel_scope.cancel()
        phase("settling", run)
        await _settle(run, url, options["clients"])
        leave.set()


async def _attack(run: HostileRun, port: int, options: dict[str, Any]) -> None:
    """Runs the process of the bad peers."""
    words = (str(port), str(options["seed"]), str(options["inputs"]), str(options["seconds"]))
    command = [sys.executable, "-m", "tests.verification.hostile.attack", *words]
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                report = json.loads(line)
                if "late" in report:
                    run.starvation.record("attackers", *report["late"])
                else:
                    run.tally.sent, run.tally.answered = Counter(report["sent"]), Counter(report["answered"])
    finally:
        process.kill()  # if the run is interrupted; otherwise it has exited already
        with trio.CancelScope(shield=True):
            await process.wait()


async def _watch(run: HostileRun, pid: int) -> None:
    while True:
        run.rss.append(rss_mib(pid))
        await trio.sleep(LOOK_SECONDS)


async def _settle(run: HostileRun, url: str, clients: int) -> None:
    """Waits until the server has only the healthy clients left."""
    with trio.move_on_after(SETTLE_SECONDS):
        while True:
            run.metrics = await _metrics(url)
            run.active_after = int(run.metrics.get("lastcall_sessions_active", -1))
            if run.active_after <= clients:
                return
            await trio.sleep(LOOK_SECONDS)


async def _metrics(url: str) -> dict[str, float]:
    """Returns the samples of `/metrics` by name and labels, as written there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := await stream.receive_some(65_536):
            data += chunk
    lines = [line for line in data.decode(errors="replace").splitlines() if line.startswith("lastcall_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def _orphans(directory: Path) -> int:
    """Returns how many orphans `lastcall orphans` finds while the server still runs."""
    command = [sys.executable, "-m", "lastcall", "orphans", "--json", "--data-dir", str(directory / "data")]
    answer = await trio.run_process(command, cwd=ROOT, check=False, capture_stdout=True, capture_stderr=True)
    try:
        return len(json.loads(answer.stdout)["orphans"])
    except (ValueError, KeyError):
        raise Failed(f"lastcall orphans failed: {answer.stderr.decode(errors='replace')[-300:]}") from None


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


def rss_mib(pid: int) -> float:
    try:
        return int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES / MIB
    except (OSError, IndexError):
        return 0.0
