"""The mutants: their quotes match the code, and a sample of them is made and seen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ..support.command_line import run
from .mutants import run as mutants_run
from .mutants.__main__ import mutating
from .mutants.catalogue import MUTANTS
from .mutants.mutant import ROOT, Mutant, MutantNotFound, mutated
from .mutants.report import figures
from .mutants.run import Code, copies, try_mutant
from .promises import PROMISES, Promise

MUTANTS_MIN = 180
CLAIMED = {promise for promise, entry in PROMISES.items() if "mutants" in entry.provers}
CHEAP = "an item is acknowledged before its commit"
CHEAP_IN_SQL = "the lock of a lease has a key of one hex digit"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mutating", *arguments])
    return run(mutating)


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    with copies(1) as codes:
        yield codes[0]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mistake_has_its_place_in_the_code_and_can_be_imported(mutant: Mutant) -> None:
    text = mutated(mutant)
    if mutant.file.endswith(".py"):
        compile(text, mutant.file, "exec")
    assert mutant.promises
    assert mutant.promises <= CLAIMED


def test_the_tests_that_have_to_see_a_mistake_exist() -> None:
    asked = {mutant.test for mutant in MUTANTS if mutant.test is not None}
    assert {test for test in asked if f"def {test.partition('::')[2]}(" not in source(test)} == set()


def source(test: str) -> str:
    return (ROOT / test.partition("::")[0]).read_text()


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


async def test_a_mistake_in_the_sql_is_made_and_seen_on_postgresql(code: Code) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == CHEAP_IN_SQL)
    verdict = await try_mutant(mutant, code, seeds_max=1)
    assert verdict.promise == Promise.NO_ORPHAN
    assert mutant.test is not None
    assert verdict.example == f"failed: {mutant.test.partition('::')[2]}"


async def test_a_mistake_that_no_statement_survives_counts_as_nothing(code: Code) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == CHEAP_IN_SQL)
    verdict = await try_mutant(replace(mutant, new="no_such_function(instance_id)"), code, seeds_max=1)
    assert (verdict.promise, verdict.test) == (None, True)


async def test_a_change_that_breaks_nothing_is_not_said_to_be_caught(code: Code) -> None:
    harmless = replace(MUTANTS[0], new=f"{MUTANTS[0].old}            # nothing\n")
    verdict = await try_mutant(harmless, code, seeds_max=1)
    assert (verdict.promise, verdict.seeds) == (None, 1)
    result = figures([verdict], [], seconds=1.0, processes=1)
    assert not result["ok"]
    assert result["survived"] == [harmless.name]


async def test_a_process_that_takes_too_long_gives_no_verdict(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants_run, "PROCESS_SECONDS_MAX", 0.1)
    verdict = await try_mutant(MUTANTS[0], code, seeds_max=1)
    assert (verdict.promise, verdict.seeds) == (None, 0)
    assert verdict.example == "no verdict within 0.1 s"


async def test_a_mistake_that_cannot_be_imported_counts_as_nothing(code: Code) -> None:
    unknown = replace(
        MUTANTS[0], file="server/lastcall/sessions/upkeep/reaper.py", old="DOUBTFUL_REAP_SECONDS = 0.1", new="_ = 1 / 0"
    )
    verdict = await try_mutant(unknown, code, seeds_max=1)
    assert (verdict.promise, verdict.seeds) == (None, 0)
    assert "ZeroDivisionError" in verdict.example


@pytest.mark.parametrize("mistake", [("--only", "nothing of the kind"), ("--file", "README.md")])
def test_a_users_mistake_is_one_line_and_exit_code_2(
    mistake: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *mistake) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert repr(mistake[1]) in err
