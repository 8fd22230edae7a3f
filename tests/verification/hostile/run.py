"""One run: a real server with an embedded PostgreSQL, the healthy clients, the attack, and what is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from .peers import Tally, talk

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SETTLE_SECONDS = 60.0  # what the server may take to be rid of the last bad peer
LOOK_SECONDS = 0.5
WARM_UP_SECONDS = 3.0  # of healthy turns alone, before the attack
DRAIN_SECONDS = 10.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1_048_576
# Bad peers come from 49 addresses of this machine, so that the limits of an address have to be set to hold for them.
ADDRESS_LIMITS = ("--address-connections-max", "100", "--address-connections-per-second", "50")


class Failed(Exception):
    """The run cannot go on; the message is one line."""


@dataclass
class Run:
    """rss: of the server's process, in MiB, from the begin of the attack on. exit_code: of its SIGTERM at the end."""

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
    attack_seconds: float = 0.0


async def conduct(directory: Path, options: dict[str, Any], phase: Callable[[str, Run], None]) -> Run:
    """From the server's start to its end. options: seconds, inputs, seed, clients."""
    run = Run()
    log = directory / "server.log"
    phase("starting", run)
    async with serving(directory, log) as (process, url):
        run.pid = process.pid
        await _talk_and_attack(run, process.pid, url, options, phase)
        run.pid_after = process.pid if process.poll() is None else 0
        phase("stopping", run)
        run.orphans = await _orphans(directory)
        process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
        run.exit_code = process.returncode if process.returncode is not None else -1
    run.log = _read(log)
    return run


@asynccontextmanager
async def serving(directory: Path, log: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """`lastcall serve` with every line of its log, in a process of its own; ended by its id."""
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
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            for line in _read(log).splitlines():
                if '"ready"' in line:
                    return str(json.loads(line)["url"])
            await trio.sleep(LOOK_SECONDS)
    raise Failed(f"the server did not start: {_read(log)[-300:]}")


async def _talk_and_attack(
    run: Run, pid: int, url: str, options: dict[str, Any], phase: Callable[[str, Run], None]
) -> None:
    port, leave = int(url.rpartition(":")[2]), trio.Event()
    async with trio.open_nursery() as healthy:
        for number in range(options["clients"]):
            healthy.start_soon(talk, url, number, run.tally, leave)
        phase("warming up", run)
        await trio.sleep(WARM_UP_SECONDS)
        run.rss_before = rss_mib(pid)
        run.tally.turns.clear()
        phase("attacking", run)
        began = trio.current_time()
        async with trio.open_nursery() as watching:
            watching.start_soon(_watch, run, pid)
            await _attack(run, port, options)
            run.attack_seconds = trio.current_time() - began
            watching.cancel_scope.cancel()
        phase("settling", run)
        await _settle(run, url, options["clients"])
        leave.set()


async def _attack(run: Run, port: int, options: dict[str, Any]) -> None:
    """The bad peers' process, from its begin to its end."""
    words = (str(port), str(options["seed"]), str(options["inputs"]), str(options["seconds"]))
    command = [sys.executable, "-m", "tests.verification.hostile.attack", *words]
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                told = json.loads(line)
                run.tally.sent, run.tally.answered = Counter(told["sent"]), Counter(told["answered"])
    finally:
        process.kill()  # where the run is interrupted; else it has ended by itself
        with trio.CancelScope(shield=True):
            await process.wait()


async def _watch(run: Run, pid: int) -> None:
    while True:
        run.rss.append(rss_mib(pid))
        await trio.sleep(LOOK_SECONDS)


async def _settle(run: Run, url: str, clients: int) -> None:
    """Waits until the server holds nobody but the healthy clients."""
    with trio.move_on_after(SETTLE_SECONDS):
        while True:
            run.metrics = await _metrics(url)
            run.active_after = int(run.metrics.get("lastcall_sessions_active", -1))
            if run.active_after <= clients:
                return
            await trio.sleep(LOOK_SECONDS)


async def _metrics(url: str) -> dict[str, float]:
    """The samples of `/metrics`, by name and labels as they stand there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := await stream.receive_some(65_536):
            data += chunk
    lines = [line for line in data.decode(errors="replace").splitlines() if line.startswith("lastcall_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def _orphans(directory: Path) -> int:
    """What `lastcall orphans` finds while the server still runs."""
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
