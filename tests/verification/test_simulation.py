"""A sample of the simulation in the suite, its repeatability, and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from random import SystemRandom

import pytest

from ..support.fake_store import FakeStore
from .promises import PROMISES
from .simulation import coverage
from .simulation.plan import plan_of
from .simulation.report import Total, figures, replay
from .simulation.run import run_seed

FIXED_SEEDS = 48
FRESH_SEEDS = 16
SEEDS_AT_ONCE = 4  # in one test: so none takes long, and several can run in parallel
SEED_MAX = 2**32
PROCESS_SECONDS = 60


def failing(seeds: range) -> str:
    """How to replay the seeds that broke a promise, with an example of each."""
    outcomes = [outcome for outcome in map(run_seed, seeds) if outcome.broken]
    return "\n".join(f"{replay(outcome.seed)}\n    {outcome.examples[0]}" for outcome in outcomes)


@pytest.mark.parametrize("first", range(0, FIXED_SEEDS, SEEDS_AT_ONCE))
def test_every_promise_holds_in_fixed_worlds(first: int) -> None:
    assert failing(range(first, first + SEEDS_AT_ONCE)) == ""


@pytest.mark.parametrize("_part", range(FRESH_SEEDS // SEEDS_AT_ONCE))
def test_every_promise_holds_in_random_worlds(_part: int) -> None:
    first = SystemRandom().randrange(SEED_MAX)
    assert failing(range(first, first + SEEDS_AT_ONCE)) == ""


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.verification.simulation", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )


# --- repeatable


def test_a_seed_gives_the_same_world_in_every_process() -> None:
    """Also under another hash seed."""
    runs = [in_a_process("--seed", "7", "--json", PYTHONHASHSEED=hash_seed) for hash_seed in ("1", "2")]
    results = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert results[0]["trace_hash"] == results[1]["trace_hash"]
    assert results[0]["sessions"] == results[1]["sessions"] > 0


def test_an_earlier_world_in_the_process_does_not_change_a_world() -> None:
    first = run_seed(3, trace=True)
    run_seed(4)
    again = run_seed(3, trace=True)
    assert again.trace == first.trace
    assert again.digest == first.digest


def test_two_seeds_give_two_worlds() -> None:
    assert run_seed(1, trace=True).digest != run_seed(2, trace=True).digest


def test_a_seed_gives_the_same_plan() -> None:
    assert plan_of(9) == plan_of(9)
    assert plan_of(9) != plan_of(10)


# --- figures


def test_a_broken_promise_is_reported_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    append = FakeStore._append
    monkeypatch.setattr(
        FakeStore, "_append", lambda store, items: bool(items and items[0].role == "user") or append(store, items)
    )
    total = Total()
    total.add(run_seed(0, trace=True))
    result = figures(total, 1.0, 1)
    assert not result["ok"]
    assert result["failing_seeds"] == [0]
    assert result["replay"] == ["scripts/simulate --seed 0 --trace"]
    assert any("CHECK" in line for line in run_seed(0, trace=True).trace)


def test_gaps_in_coverage_are_reported_after_enough_seeds() -> None:
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
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], fix: str) -> None:
    run = in_a_process(*arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert fix in run.stderr


def test_one_seed_prints_its_trace_and_many_print_their_figures() -> None:
    shown = in_a_process("--seed", "5", "--trace")
    assert shown.returncode == 0
    assert "connects to" in shown.stdout
    run = in_a_process("--seeds", "6", "--first-seed", "0", "--json")
    result = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0
    assert result["ok"]
    assert result["seeds"] == 6
    assert result["broken_promises"] == 0
    assert set(result["broken"]) == {promise for promise, entry in PROMISES.items() if "simulation" in entry.provers}
    assert set(result["coverage"]) >= {"reason", "ending", "opening", "process"}
