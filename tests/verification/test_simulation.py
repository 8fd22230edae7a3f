"""A share of the simulation in the suite, and the simulation's own promises: repeatable, and not to be fooled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from random import SystemRandom
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from lastcall.realtime.exit_path import ExitPath
from lastcall.realtime.reader import Reader
from lastcall.store.records import EndReason, StoredItem

from ..support.fake_rows import SessionRecord
from ..support.fake_store import FakeStore
from .simulation import coverage
from .simulation.checker import Checker
from .simulation.clients import Crowd
from .simulation.clock import until
from .simulation.database import Lag
from .simulation.network import CLOSE, HEAD, TEXT, FrameReader, MemoryListener, Wire, masked_frame
from .simulation.plan import Manner, Person, plan_of
from .simulation.report import Total, figures, replay
from .simulation.run import run_seed
from .simulation.watch import Watch
from .simulation.world import World, simulate

FIXED_SEEDS = 48
FRESH_SEEDS = 16
SEED_MAX = 2**32
CATCH_SEEDS = 40  # within which a broken promise has to be seen
PROCESS_SECONDS = 60
REAPED_SECONDS = 5.0
LOOK_SECONDS = 0.1


def told(failing: dict[int, list[str]]) -> str:
    return "\n".join(f"{replay(seed)}\n    {examples[0]}" for seed, examples in failing.items())


def failing(seeds: range) -> dict[int, list[str]]:
    outcomes = map(run_seed, seeds)
    return {outcome.seed: outcome.examples for outcome in outcomes if outcome.broken}


def test_every_promise_holds_in_the_same_worlds_as_ever() -> None:
    found = failing(range(FIXED_SEEDS))
    assert not found, told(found)


def test_every_promise_holds_in_worlds_that_nobody_has_seen_before() -> None:
    first = SystemRandom().randrange(SEED_MAX)
    found = failing(range(first, first + FRESH_SEEDS))
    assert not found, told(found)


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.verification.simulation", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )


def test_a_seed_is_the_same_world_in_every_process() -> None:
    runs = [in_a_process("--seed", "7", "--json", PYTHONHASHSEED=hash_seed) for hash_seed in ("1", "2")]
    results = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert results[0]["trace_hash"] == results[1]["trace_hash"]
    assert results[0]["sessions"] == results[1]["sessions"] > 0


def test_what_ran_before_in_a_process_does_not_change_a_world() -> None:
    first = run_seed(3, trace=True)
    run_seed(4)
    again = run_seed(3, trace=True)
    assert again.trace == first.trace
    assert again.digest == first.digest


def test_two_seeds_are_two_worlds() -> None:
    assert run_seed(1, trace=True).digest != run_seed(2, trace=True).digest


# --- the checker is not to be fooled


def loses_items(patch: pytest.MonkeyPatch) -> None:
    append = FakeStore._append

    def lose(store: FakeStore, items: list[StoredItem]) -> bool:
        return True if items and items[0].role == "user" else append(store, items)

    patch.setattr(FakeStore, "_append", lose)


def rewrites_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FakeStore, "_is_active", lambda store, key: key in store.sessions)


def dates_ends_by_their_commit(patch: pytest.MonkeyPatch) -> None:
    close = FakeStore._close

    def close_now(
        store: FakeStore, row: SessionRecord, _ended: float, reason: EndReason, code: int | None, by: Any
    ) -> None:
        close(store, row, trio.current_time(), reason, code, by)

    patch.setattr(FakeStore, "_close", close_now)


def remembers_twice(patch: pytest.MonkeyPatch) -> None:
    finish = FakeStore._finish

    def finish_again(store: FakeStore, session_id: Any, memories: Any) -> bool:
        done = finish(store, session_id, memories)
        store.sessions[session_id].memory_status = "pending"
        store.sessions[session_id].memory_due_at = trio.current_time() + 1.0
        return done

    patch.setattr(FakeStore, "_finish", finish_again)


def forgets_rows(patch: pytest.MonkeyPatch) -> None:
    async def nothing(_exit_path: ExitPath) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(ExitPath, "_end_in_time", nothing)


def hears_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.instance.InstanceLease._stop_session", lambda *_: None)


def sweeps_the_living(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.reaper.cause_of_death", lambda *_: "it looked at me")


def ends_connections(patch: pytest.MonkeyPatch) -> None:
    async def leave(reader: Reader) -> None:
        await trio.sleep(0.3)
        reader._session.stop(EndReason.CLIENT_LOST)

    patch.setattr(Reader, "keep_alive", leave)


@pytest.mark.parametrize(
    ("breaks", "promise"),
    [
        (loses_items, "I5 lost"),
        (rewrites_ends, "I3 end"),
        (dates_ends_by_their_commit, "I3 end"),
        (remembers_twice, "I4 memory"),
        (forgets_rows, "I1 orphan"),
        (hears_nothing, "I2 ghost"),
        (sweeps_the_living, "I6 swept"),
        (ends_connections, "I8 contained"),
    ],
)
def test_a_broken_promise_is_seen(
    breaks: Callable[[pytest.MonkeyPatch], None], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    assert any(run_seed(seed).broken[promise] for seed in range(CATCH_SEEDS))


@pytest.mark.parametrize(("after", "broken"), [(0.05, []), (0.25, ["I3 end"])])
def test_a_server_that_dies_with_its_word_under_way_leaves_its_last_sign_of_life_as_the_end(
    after: float, broken: list[str]
) -> None:
    """Nobody can know better; but a word that takes for ever is a promise broken."""
    found: list[str] = []

    async def main(world: World) -> None:
        watch = Watch(world)
        crowd = Crowd(world, watch)
        server, other = world.start_server(), world.start_server()
        await server.ready.wait()
        await other.ready.wait()
        other.listener.open = False  # so that the client comes to the first one
        end = server.link.lag = Lag("end_session", after + 1.0, trio.Event())
        async with trio.open_nursery() as nursery:
            leaves = Manner([], 0.0, "plain", "fin", "after", torn=False, busy=False, interrupts=False, returns=False)
            nursery.start_soon(crowd.live, Person("user", 0.0, [leaves]))
            await end.began.wait()
            await trio.sleep(after)
            server.link.own()[0].heartbeat_at = trio.current_time()
            server.crash()
        (row,) = world.database.sessions.values()
        await until(lambda: not row.is_active, REAPED_SECONDS, LOOK_SECONDS)
        other.terminate()
        await other.over.wait()
        Checker(world, watch, crowd.visits).run()
        found.extend(watch.findings.broken)

    simulate(1, main)
    assert found == broken


@pytest.mark.parametrize(("begins_again", "unheard"), [(2.5, True), (2.9, False)])
def test_a_server_whose_troubles_follow_each_other_at_once_is_not_heard_in_between(
    begins_again: float, unheard: bool
) -> None:
    owner: Any = SimpleNamespace(trouble=[[0.4, 2.4], [begins_again, 7.0]])
    assert Checker._unheard_of(owner, 3.1) is unheard


def test_who_judged_a_server_rightly_may_freeze_before_it_closes_the_rows() -> None:
    found: list[str] = []

    async def main(world: World) -> None:
        watch = Watch(world)
        crowd = Crowd(world, watch)
        owner, judge = world.start_server(), world.start_server(host="elsewhere")
        await owner.ready.wait()
        await judge.ready.wait()
        judge.listener.open = False  # so that the client comes to the other one
        reap = judge.link.lag = Lag("reap", 0.1, trio.Event())
        stays = Manner([], 0.0, "plain", "stay", "after", torn=False, busy=False, interrupts=False, returns=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.live, Person("user", 0.0, [stays]))
            await until(lambda: any(visit.served for visit in crowd.visits), REAPED_SECONDS, LOOK_SECONDS)
            owner.freeze()
            await reap.began.wait()
            judge.freeze()
            await trio.sleep(REAPED_SECONDS)
            judge.thaw()
            await trio.sleep(LOOK_SECONDS)
            owner.thaw()
        for server in world.servers:
            server.terminate()
            await server.over.wait()
        assert [row.end_reason for row in world.database.sessions.values()] == ["owner_died"]
        Checker(world, watch, crowd.visits).run()
        found.extend(watch.findings.broken)

    simulate(1, main)
    assert found == []


@pytest.mark.parametrize(("seconds", "until"), [(1.0, 1.0), (6.0, 14.25)])
def test_a_freeze_excuses_only_the_sockets_that_it_meets(seconds: float, until: float) -> None:
    owner: Any = SimpleNamespace(trouble=[[2.0, 8.0]])
    assert Checker._socket_until(owner, 0.0, seconds) == until


def test_a_broken_promise_comes_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loses_items(monkeypatch)
    total = Total()
    total.add(run_seed(0, trace=True))
    result = figures(total, 1.0, 1)
    assert not result["ok"]
    assert result["failing_seeds"] == [0]
    assert result["replay"] == ["scripts/simulate --seed 0 --trace"]
    assert any("CHECK" in line for line in run_seed(0, trace=True).trace)


def test_what_was_never_reached_is_named_once_there_were_seeds_enough() -> None:
    few, enough = Total(), Total()
    few.seeds, enough.seeds = coverage.SEEDS_MIN - 1, coverage.SEEDS_MIN
    assert few.missing is None
    assert few.ok
    assert "reason: slow_reader" in (enough.missing or ())
    assert not enough.ok


# --- the command


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--trace"], "--seed"),
        (["--seed", "1", "--seeds", "2"], "--seeds"),
        (["--seed", "1", "--first-seed", "2"], "--first-seed"),
        (["--seeds", "0"], "--seeds"),
        (["--seed", "x"], "--seed"),
        (["--sed", "1"], "--sed"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], fix: str) -> None:
    run = in_a_process(*arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert fix in run.stderr


def test_a_seed_shows_its_trace_and_a_run_all_its_figures() -> None:
    shown = in_a_process("--seed", "5", "--trace")
    assert shown.returncode == 0
    assert "connects to" in shown.stdout
    run = in_a_process("--seeds", "6", "--first-seed", "0", "--json")
    result = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0
    assert result["ok"]
    assert result["seeds"] == 6
    assert result["broken_promises"] == 0
    assert set(result["coverage"]) >= {"reason", "ending", "opening", "process"}


# --- the world


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert plan_of(9) == plan_of(9)
    assert plan_of(9) != plan_of(10)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_frames_are_read_however_they_are_torn(size: int, piece: int) -> None:
    payload = b"x" * size
    head = masked_frame(TEXT, payload).removesuffix(b"\0\0\0\0" + payload)
    unmasked = bytes((head[0], head[1] & 0x7F)) + head[2:] + payload
    data = b"HTTP/1.1 101 Yes\r\n\r\n" + unmasked + bytes((0x80 | CLOSE, 0))
    reader, frames = FrameReader(), []
    for start in range(0, len(data), piece):
        frames += reader.feed(data[start : start + piece])
    assert frames == [(HEAD, b"HTTP/1.1 101 Yes\r\n\r\n"), (TEXT, payload), (CLOSE, b"")]


async def test_a_connection_holds_no_more_than_its_buffer_until_its_client_reads(autojump_clock: Any) -> None:
    listener = MemoryListener()
    wire = Wire(lambda _: None, lambda _: None)
    wire.down_bytes_max = 10
    assert listener.connect(wire)
    ours = await listener.accept()
    with trio.move_on_after(1) as stuck:
        await ours.send_all(b"x" * 11)
    assert stuck.cancelled_caught
    wire.drain()
    await ours.send_all(b"x" * 10)


async def test_a_reset_breaks_both_directions_and_a_fin_only_one(autojump_clock: Any) -> None:
    listener = MemoryListener()
    wire = Wire(lambda _: None, lambda _: None)
    listener.connect(wire)
    ours = await listener.accept()
    wire.send(b"last")
    wire.fin()
    assert await ours.receive_some() == b"last"
    assert await ours.receive_some() == b""
    await ours.send_all(b"x")
    wire.reset()
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")


def test_a_frozen_server_does_nothing_and_is_late_for_everything_on_waking() -> None:
    heartbeats: list[float] = []

    async def main(world: World) -> None:
        server = world.start_server()
        await server.ready.wait()
        server.freeze()
        await trio.sleep(5)
        (record,) = server.link.own()
        heartbeats.append(trio.current_time() - record.heartbeat_at)
        server.thaw()
        await trio.sleep(0.5)
        heartbeats.append(trio.current_time() - record.heartbeat_at)

    simulate(1, main)
    assert heartbeats[0] == pytest.approx(5, abs=0.1)
    assert heartbeats[1] < 1


def test_a_crashed_server_has_no_effect_any_more() -> None:
    seen: list[Any] = []

    async def main(world: World) -> None:
        server = world.start_server()
        await server.ready.wait()
        wire = server.connect(lambda _: None, lambda _: None)
        assert wire is not None
        server.crash()
        (record,) = server.link.own()
        heartbeat = record.heartbeat_at
        await trio.sleep(30)
        seen.extend((wire.ended, server.accepting, record.stopped_at, record.heartbeat_at - heartbeat))
        seen.append(server.connect(lambda _: None, lambda _: None))

    simulate(1, main)
    assert seen == ["reset", False, None, 0, None]
