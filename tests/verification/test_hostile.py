"""A small share of `scripts/hostile` in every run of the tests; and that its audit notices what it is there for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from .hostile.audit import figures
from .hostile.inputs import KINDS, SECRET, inputs
from .hostile.peers import Tally
from .hostile.run import ROOT, Run

RUN_SECONDS_MAX = 120
pytestmark = pytest.mark.alone

OPTIONS: dict[str, Any] = {"seed": 1, "inputs": 3, "clients": 1, "seconds": 10}
SMALL = ("--inputs", "40", "--clients", "5", "--seconds", "5", "--seed", "7")


def test_a_short_attack_costs_the_healthy_clients_nothing() -> None:
    command = [sys.executable, "-m", "tests.verification.hostile", "--json", *SMALL]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    result = json.loads(answer.stdout.splitlines()[-1])
    # How long a turn takes is not judged here: other tests may run beside.
    assert [promise for promise in result["broken"] if promise not in ("healthy turns", "every input was sent")] == []
    assert result["healthy_turns"] > 0
    assert result["inputs"] > 0
    assert result["secrets_in_log"] == 0


def test_the_same_seed_makes_the_same_inputs_of_every_kind() -> None:
    once, again, other = list(inputs(1, 1_000)), list(inputs(1, 1_000)), list(inputs(2, 1_000))
    assert once == again
    assert once != other
    assert {each.kind for each in once} == set(KINDS)


def good_run() -> Run:
    return Run(
        tally=Tally(sent=Counter(json=3), turns=[0.1] * 10),
        rss=[100.0] * 10,
        pid=1,
        pid_after=1,
        orphans=0,
        active_after=1,
        exit_code=0,
        log='{"event": "ready"}\n',
    )


def test_a_run_in_which_every_promise_held_is_ok() -> None:
    result = figures(good_run(), OPTIONS)
    assert result["ok"], result["broken"]


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"tally": Tally(sent=Counter(json=2), turns=[0.1] * 10)}, "every input was sent"),
        ({"tally": Tally(sent=Counter(json=3), turns=[0.1] * 90 + [1.1] * 10)}, "healthy turns"),
        ({"tally": Tally(sent=Counter(json=3))}, "healthy turns"),
        (
            {"tally": Tally(sent=Counter(json=3), turns=[0.1] * 10, lost=["client 1"])},
            "no healthy client was disconnected",
        ),
        ({"pid_after": 2}, "no restart"),
        ({"pid_after": 0}, "no restart"),
        ({"exit_code": 1}, "no restart"),
        ({"orphans": 1}, "no orphan"),
        ({"active_after": 2}, "no bad peer is left"),
        ({"rss": [100.0] * 5 + [300.0] * 5}, "flat memory"),
        ({"log": f"Authorization: Bearer {SECRET}\n"}, "no secret in the log"),
        ({"log": '{"event": "session_crashed"}\n'}, "nothing crashed"),
    ],
)
def test_the_audit_names_each_promise_that_did_not_hold(changes: dict[str, Any], promise: str) -> None:
    run = good_run()
    for name, value in changes.items():
        setattr(run, name, value)
    result = figures(run, OPTIONS)
    assert result["broken"] == [promise]
    assert not result["ok"]
