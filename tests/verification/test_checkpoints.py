"""A sample of the strikes at checkpoints, and tests that the proof reports broken promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from random import SystemRandom
from typing import Any
from uuid import UUID

import pytest
import trio
from lastcall.realtime.exit_path import ExitPath
from lastcall.store.errors import StoreError

from ..support.command_line import run
from ..support.fake_store import FakeStore
from .checkpoints.__main__ import checkpoints
from .checkpoints.proof import Proof, prove, run_once, run_strike, strikes
from .checkpoints.report import command, figures, replay
from .checkpoints.scenarios import SCENARIOS
from .checkpoints.strike import KINDS, Kind, Strike
from .promises import PROMISES, Promise

STRIDE = 100
PROCESS_SECONDS = 60


def failures(proof: Proof) -> str:
    return "\n".join(f"{replay(outcome, proof.seed)}\n    {outcome.examples[0]}" for outcome in proof.failing)


def test_every_promise_holds_at_fixed_checkpoints() -> None:
    proof = prove(stride=STRIDE)
    assert not proof.failing, failures(proof)


def test_every_promise_holds_at_random_checkpoints_and_orders_of_tasks() -> None:
    random = SystemRandom()
    proof = prove(seed=random.randrange(2**32), stride=STRIDE, offset=random.randrange(STRIDE))
    assert not proof.failing, failures(proof)


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("close frame", "client_closed"),
        ("FIN", "client_lost"),
        ("RST", "client_lost"),
        ("protocol error", "protocol_error"),
        ("too big", "message_too_big"),
        ("vanished", "client_vanished"),
        ("slow reader", "slow_reader"),
        ("session crash", "server_error"),
        ("crash in mid-answer", "server_error"),
        ("begin refused", "no row"),
        ("overloaded", "no row"),
        ("row closed elsewhere", "by_hand"),
        ("SIGTERM in mid-answer", "shutdown"),
        ("second SIGTERM", "shutdown"),
        ("lease lost", "owner_died"),
        ("frozen and reaped", "owner_died"),
    ],
)
def test_a_scenario_ends_as_its_name_says(scenario: str, reason: str) -> None:
    assert dict(run_once(scenario, 0).reasons) == {reason: 1}


def test_scenarios_have_checkpoints_and_kinds_of_strikes_have_scenarios() -> None:
    seen: set[Kind] = set()
    for name in SCENARIOS:
        counted = run_once(name, 0)
        assert len(counted.checkpoints) >= 10, name
        seen.update(strike.kind for strike in strikes(counted, 0))
    assert seen == set(KINDS)


def test_a_checkpoint_is_at_the_same_time_in_every_run() -> None:
    first, again = run_once("memory", 0, trace=True), run_once("memory", 0, trace=True)
    assert first.checkpoints == again.checkpoints
    assert first.trace == again.trace
    struck = run_strike(Strike("memory", "crash", 20, 0))
    assert struck.struck_at == (first.checkpoints[19].at, first.checkpoints[19].task)


def test_a_strike_at_another_checkpoint_than_planned_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.verification.checkpoints.proof.run_strike", lambda strike: run_once(strike.scenario, 1, strike)
    )
    proof = prove(["close frame"], kinds=["cancel"], stride=20)
    assert any(outcome.broken[Promise.REPEATABLE] for outcome in proof.failing)


# --- broken promises are reported


def skips_the_exit_when_cancelled(patch: pytest.MonkeyPatch) -> None:
    run = ExitPath.run

    async def run_unless_cancelled(exit_path: ExitPath) -> None:
        await trio.lowlevel.checkpoint()
        await run(exit_path)

    patch.setattr(ExitPath, "run", run_unless_cancelled)


def ends_unshielded(patch: pytest.MonkeyPatch) -> None:
    async def end(exit_path: ExitPath) -> None:
        with exit_path._step("end_session"), trio.move_on_after(exit_path._services.settings.end_seconds):
            await exit_path._end_row()

    patch.setattr(ExitPath, "_end_in_time", end)


def waits_for_its_peer_when_cancelled(patch: pytest.MonkeyPatch) -> None:
    close = ExitPath._close

    async def close_shielded(exit_path: ExitPath) -> None:
        with trio.CancelScope(shield=True):
            await close(exit_path)

    patch.setattr(ExitPath, "_close", close_shielded)


def reaps_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.death.cause_of_death", lambda *_: None)


def ignores_notifications(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.instance.InstanceLease._stop_sessions", lambda *_: None)


def waits_for_answers_without_limit(patch: pytest.MonkeyPatch) -> None:
    async def wait(services: Any, _signals: Any) -> None:
        for session in services.registry:
            await session.wait_answered()

    patch.setattr("lastcall.shutdown._let_responses_finish", wait)


def crashes_on_a_store_error(patch: pytest.MonkeyPatch) -> None:
    class Never(StoreError):
        pass

    patch.setattr("lastcall.sessions.instance.StoreError", Never)


def remembers_twice(patch: pytest.MonkeyPatch) -> None:
    finish = FakeStore.finish_memory

    async def finish_again(store: FakeStore, finished: Any, **options: Any) -> Collection[UUID]:
        for each in finished:
            store.sessions[each.session_id].memory_status = "pending"
        return await finish(store, finished, **options)

    patch.setattr(FakeStore, "finish_memory", finish_again)


@pytest.mark.parametrize(
    ("breaks", "kind", "scenario", "promise"),
    [
        (skips_the_exit_when_cancelled, "cancel", "close frame", Promise.NO_ORPHAN),
        (ends_unshielded, "cancel", "FIN", Promise.NO_ORPHAN),
        (waits_for_its_peer_when_cancelled, "cancel", "vanished", Promise.BOUNDED),
        (reaps_nobody, "crash", "FIN", Promise.NO_ORPHAN),
        (ignores_notifications, "by-hand", "agent hangs", Promise.NO_GHOST),
        (waits_for_answers_without_limit, "signal", "agent hangs", Promise.ONE_END),
        (crashes_on_a_store_error, "error-before", "lease lost", Promise.CONTAINED),
        (remembers_twice, "error-after", "memory", Promise.MEMORY_ONCE),
    ],
)
def test_a_promise_that_only_a_strike_breaks_is_reported(
    breaks: Callable[[pytest.MonkeyPatch], None],
    kind: Kind,
    scenario: str,
    promise: Promise,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks(monkeypatch)
    assert not run_once(scenario, 0).broken
    proof = prove([scenario], kinds=[kind], stride=1 if kind.startswith("error") else 5)
    assert any(outcome.broken[promise] for outcome in proof.failing)


def test_a_broken_promise_is_reported_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    skips_the_exit_when_cancelled(monkeypatch)
    proof = prove(["close frame"], kinds=["cancel"], stride=15)
    result = figures(proof, 1.0, 1)
    assert not result["ok"]
    assert result["broken_runs"] == len(proof.failing) == result["table"][0]["broken_runs"]
    assert sum(result["broken"].values()) > 0
    strike = proof.failing[0].strike
    assert strike is not None
    assert result["examples"][0]["replay"] == command(strike)
    assert command(strike) == f"scripts/simulate --checkpoints --scenario 'close frame' --at {strike.at} --with cancel"
    assert run_strike(strike).examples == proof.failing[0].examples


# --- the command


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--at", "1"], "--with"),
        (["--scenario", "FIN", "--with", "crash"], "--at"),
        (["--at", "1", "--with", "crash"], "--scenario"),
        (["--scenario", "FIN", "--at", "5000", "--with", "crash"], "checkpoints"),
        (["--scenario", "none such"], "close frame"),
        (["--with", "none such"], "crash"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoints", *arguments])
    assert run(checkpoints) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert fix in said.err


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.verification.checkpoints", *arguments],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )


def test_a_proof_prints_its_figures_and_one_strike_its_trace() -> None:
    run = in_a_process("--scenario", "half a handshake", "--json")
    result = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0
    assert result["ok"]
    assert result["broken_runs"] == sum(result["broken"].values()) == 0
    assert set(result["broken"]) == {promise for promise, entry in PROMISES.items() if "checkpoints" in entry.provers}
    assert result["checkpoints"] == result["table"][0]["checkpoints"] > 0
    assert result["runs"] == sum(result["strikes"].values()) + 1
    shown = in_a_process("--scenario", "close frame", "--at", "40", "--with", "crash")
    assert shown.returncode == 0
    assert "STRIKE" in shown.stdout
    assert "crashed" in shown.stdout
    assert "0 broken" in shown.stdout
