"""The process that runs the rules, for real: its budget, its replacement, and its end with the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from lastcall.agents.agent import AgentFailed, Memory, Message, Transcript
from lastcall.config import Settings
from lastcall.memory.extract import RulesUnavailable
from lastcall.memory.reading import Reading, read_in_process
from lastcall.memory.rules_process import RulesProcess, open_rules_process
from lastcall.memory.worker import process as worker
from lastcall.runtime.host import process_started
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually

WAIT_SECONDS = 20.0
CPU_SECONDS = 30.0  # more than any test takes
FACTS = " ".join(f"I like tea number {number}." for number in range(4_000))  # takes some 0.02 s
FACT = Memory("name", "My name is Ada.", "item_1", "My name is Ada.", slot="name")


def said(text: str) -> Transcript:
    messages = [Message("user", text, "item_1"), Message("assistant", "I like your name.", "item_2")]
    return Transcript("session", "ada", messages)


async def extracted(rules: RulesProcess, transcript: Transcript) -> list[Memory]:
    """What the rules remember of one transcript."""
    (reading,) = await rules.read([transcript])
    return reading.memories


@asynccontextmanager
async def opened(cpu_seconds: float = CPU_SECONDS) -> AsyncIterator[RulesProcess]:
    with trio.fail_after(WAIT_SECONDS):
        async with open_rules_process(cpu_seconds, start=True) as rules:
            yield rules


async def running(rules: RulesProcess, *, other_than: int = 0) -> int:
    """The id of the process, once one is ready."""

    async def look() -> int:
        await trio.lowlevel.checkpoint()
        return rules._process.pid if rules._process is not None else 0

    return await eventually(look, lambda pid: pid not in (0, other_than), within=WAIT_SECONDS)


async def until_gone(pid: int) -> None:
    async def look() -> int | None:
        await trio.lowlevel.checkpoint()
        return process_started(pid)

    await eventually(look, lambda started: started is None)


async def test_it_finds_what_the_user_said_and_nothing_else() -> None:
    async with opened() as rules:
        pid = await running(rules)
        assert await extracted(rules, said("My name is Ada.\n😀 \0 \x1f")) == [FACT]
        assert await extracted(rules, Transcript("session", "ada", [Message("assistant", "I like tea.", "i")])) == []
        assert await running(rules) == pid
    await until_gone(pid)


async def test_a_transcript_beyond_its_cpu_time_fails_and_the_next_one_does_not() -> None:
    async with opened(cpu_seconds=0.005) as rules:
        for _ in range(3):
            with pytest.raises(AgentFailed, match=r"more than 0\.005 s of CPU time"):
                await extracted(rules, said(FACTS))
            assert await extracted(rules, said("My name is Ada.")) == [FACT]


async def test_it_reads_many_sessions_at_once_and_each_has_its_own_answer() -> None:
    async with opened() as rules:
        readings = await rules.read([said(f"My name is {name}.") for name in ("Ada", "Eve")])
        assert [[memory.content for memory in each.memories] for each in readings] == [
            ["My name is Ada."],
            ["My name is Eve."],
        ]


async def test_what_the_rules_fail_on_costs_no_other_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(transcript: Transcript) -> list[Memory]:
        if transcript.session_id == "poison":
            raise ValueError("no")
        return [FACT]

    monkeypatch.setattr("lastcall.memory.rules.memories_by_rules", failing)
    poison = Transcript("poison", "ada", [Message("user", "x", "i")])
    first, second = await read_in_process([poison, said("My name is Ada.")])
    assert first == Reading(error="the rules failed: ValueError: no")
    assert second.memories == [FACT]


async def test_a_process_that_was_killed_is_replaced() -> None:
    async with opened() as rules:
        pid = await running(rules)
        os.kill(pid, signal.SIGKILL)
        await running(rules, other_than=pid)
        assert await extracted(rules, said("My name is Ada.")) == [FACT]


async def test_only_the_transcript_in_hand_fails_with_its_process() -> None:
    async with opened() as rules:
        pid = await running(rules)
        os.kill(pid, signal.SIGSTOP)
        failures: list[str] = []

        async def first() -> None:
            with pytest.raises(AgentFailed) as failed:
                await extracted(rules, said("My name is Ada."))
            failures.append(str(failed.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(os_kill, pid)
            assert await extracted(rules, said("My name is Ada.")) == [FACT]
        assert failures == ["the process of the rules ended (exit code -9)"]


async def os_kill(pid: int) -> None:
    await trio.lowlevel.checkpoint()
    os.kill(pid, signal.SIGKILL)


async def test_a_process_that_stands_still_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ANSWER_SECONDS", 0.1)
    async with opened() as rules:
        os.kill(await running(rules), signal.SIGSTOP)
        with pytest.raises(AgentFailed, match="longer than"):
            await extracted(rules, said("My name is Ada."))
        monkeypatch.undo()
        assert await extracted(rules, said("My name is Ada.")) == [FACT]


async def test_nobody_gets_the_answer_to_a_transcript_that_was_given_up() -> None:
    async with opened() as rules:
        os.kill(await running(rules), signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rules.read, [said("My name is Eve.")])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await extracted(rules, said("My name is Ada.")) == [FACT]


async def test_signals_to_all_processes_of_a_service_do_not_end_it() -> None:
    async with opened() as rules:
        pid = await running(rules)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert await extracted(rules, said("My name is Ada.")) == [FACT]
        assert await running(rules) == pid


async def test_where_it_cannot_be_started_a_transcript_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr(worker, "UP_SECONDS", 0.1)
    async with opened() as rules:
        with pytest.raises(RulesUnavailable):
            await extracted(rules, said("My name is Ada."))
        monkeypatch.undo()
        assert await extracted(rules, said("My name is Ada.")) == [FACT]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_ends_with_its_server_whatever_it_does(busy: bool) -> None:
    """Its standard input is closed as the kernel closes it for a server that was killed."""
    program = """if True:
        import sys
        import lastcall.memory.rules
        from lastcall.memory.rules_main import main
        def endless(transcript):
            while True:
                pass
        lastcall.memory.rules.memories_by_rules = endless
        main(30.0)
    """
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    if busy:
        process.stdin.write(b'[{"session_id":"s","user_id":"u","messages":[]}]\n')
    process.stdin.close()
    process.stdout.close()
    assert process.wait(5) == 0


def children(pid: int) -> set[int]:
    return {int(each) for task in Path(f"/proc/{pid}/task").glob("*/children") for each in task.read_text().split()}


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def child_of(server: ServerProcess) -> int:
    async def look() -> set[int]:
        return children(server.process.pid)

    (child,) = await eventually(look, lambda found: found, within=WAIT_SECONDS)
    assert "rules_main" in command_line(child)
    return child


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_has_one_and_leaves_none_behind(database_url: str, number: signal.Signals) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:
        async with connect(server.url, user="ada") as client:
            await client.say("My name is Ada.")
        await trio.to_thread.run_sync(server.wait_for, "session_ended")
        child = await child_of(server)
        server.process.send_signal(number)
        await trio.to_thread.run_sync(server.process.wait)
        await until_gone(child)


async def say(server: ServerProcess, text: str) -> None:
    """Returns once the session has ended: two that are finalized together are tried again alone, in a new process."""
    async with connect(server.url, user="ada") as client:
        await client.say(text)
    await trio.to_thread.run_sync(server.wait_for, "session_ended")


@pytest.mark.slow
async def test_a_server_extracts_nothing_by_itself(database_url: str, postgres_store: PostgresStore) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:
        await say(server, "My name is Ada.")
        await eventually(
            lambda: postgres_store.fetch("memory_backlog"), lambda pending: not pending, within=WAIT_SECONDS
        )
        os.kill(await child_of(server), signal.SIGSTOP)
        await say(server, "I like tea.")
        noted = await trio.to_thread.run_sync(server.wait_for, "memory_not_finalized")
    assert noted["reason"] == f"the rules took longer than {worker.ANSWER_SECONDS:g} s"


async def test_the_process_takes_a_session_apart_for_the_index() -> None:
    async with opened() as rules:
        ((reading,), (own,)) = [await read([said("My name is Ada.")]) for read in (rules.read, read_in_process)]
        assert bytes(reading.passages) == bytes(own.passages)
        assert await extracted(rules, said("My name is Ada.")) == [FACT]


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"w{number:x}" for number in range(160_000)),
        "".join(chr(0x4E00 + number % 20_000) for number in range(1_000_000)),
        "'" * 1_000_000,
        "a\u0301" * 500_000,
    ],
    ids=["words", "signs", "apostrophes", "accents"],
)
async def test_no_session_takes_longer_to_index_than_its_budget(text: str) -> None:
    async with opened(Settings().memory_cpu_seconds) as rules:
        turns = [Message("user", text[start : start + 50_000], "item") for start in range(0, len(text), 50_000)]
        (reading,) = await rules.read([Transcript("session", "ada", turns)])
        assert reading.error is None
        assert len(b"[]") < len(bytes(reading.passages)) <= worker.ANSWER_BYTES_MAX
