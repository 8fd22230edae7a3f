"""The proof's own proof: the list of mistakes is kept up with the code, and one of them is really made and seen."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from ..support.command_line import run
from .promises import PROMISES, Promise
from .simulation.mutants import MUTANTS, Mutant
from .simulation.mutating import MutantNotFound, figures, mutated, mutating, try_mutant

MUTANTS_MIN = 25
CLAIMED = {promise for promise, entry in PROMISES.items() if "mutants" in entry.provers}
CHEAP = "an item is acknowledged before its commit"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mutating", *arguments])
    return run(mutating)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mistake_has_its_place_in_the_code_and_can_be_imported(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")
    assert mutant.promises
    assert mutant.promises <= CLAIMED


def test_the_mistakes_are_many_and_break_every_promise() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= MUTANTS_MIN
    assert frozenset[str]().union(*(mutant.promises for mutant in MUTANTS)) == CLAIMED


@pytest.mark.parametrize("text", ["no such text", "return"])
def test_a_mistake_without_its_one_place_is_named_with_its_file(text: str) -> None:
    with pytest.raises(MutantNotFound, match=MUTANTS[0].file):
        mutated(replace(MUTANTS[0], old=text))


def test_a_mistake_is_made_and_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "--only", CHEAP, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ok"]
    assert (result["mutants"], result["caught"]) == (1, 1)
    assert result["verdicts"][0]["promise"] == Promise.NOTHING_LOST


async def test_a_change_that_breaks_nothing_is_not_said_to_be_caught() -> None:
    harmless = replace(MUTANTS[0], new=f"{MUTANTS[0].old}            # nothing\n")
    verdict = await try_mutant(harmless, seeds_max=1)
    assert (verdict.promise, verdict.seeds) == (None, 1)
    result = figures([verdict], [], seconds=1.0, processes=1)
    assert not result["ok"]
    assert result["survived"] == [harmless.name]


async def test_a_mistake_that_cannot_be_imported_counts_as_nothing() -> None:
    unknown = replace(
        MUTANTS[0], file="server/lastcall/sessions/reaper.py", old="CRASH_SILENT_SECONDS = 2.0", new="_ = 1 / 0"
    )
    verdict = await try_mutant(unknown, seeds_max=1)
    assert (verdict.promise, verdict.seeds) == (None, 0)
    assert "ZeroDivisionError" in verdict.example


def test_a_users_mistake_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--only", "nothing of the kind") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "mutants.py" in err
