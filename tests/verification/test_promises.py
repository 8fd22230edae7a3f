"""The list of promises is complete, and each prover reports those that the list says, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .promises import PROMISES, PROVERS, Promise

HERE = Path(__file__).parent
INVARIANTS = [f"I{number}" for number in range(1, 9)]  # of the design, section 2
PLACES = {
    "simulation": ["simulation"],
    "checkpoints": ["checkpoints", "simulation"],  # whose checks it uses
    "interleavings": ["interleavings"],
    "chaos": ["chaos"],
    "hostile": ["hostile"],
    "mutants": ["mutants"],
}
NOT_OURS = ("until_broken.py",)
ID = re.compile(r"\bI[1-8]\b")


def sources(prover: str) -> Iterator[Path]:
    for place in PLACES[prover]:
        path = HERE / place
        if path.is_file():
            yield path
        else:
            yield from (file for file in path.rglob("*.py") if file.name not in NOT_OURS)


def reported(prover: str) -> set[Promise]:
    """The promises that a prover's code names."""
    return {
        Promise[node.attr]
        for path in sources(prover)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Promise"
    }


def test_every_promise_is_listed_with_its_provers() -> None:
    assert set(PROMISES) == set(Promise)
    for entry in PROMISES.values():
        assert entry.provers
        assert entry.provers <= set(PROVERS)
        assert entry.sentence.endswith(".")


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_every_invariant_of_the_design_is_proven(invariant: str) -> None:
    (promise,) = (promise for promise in Promise if promise.split()[0] == invariant)
    assert PROMISES[promise].provers - {"mutants"}


@pytest.mark.parametrize("prover", PLACES)
def test_a_prover_reports_the_promises_that_the_list_says(prover: str) -> None:
    assert reported(prover) == {promise for promise, entry in PROMISES.items() if prover in entry.provers}


@pytest.mark.parametrize("prover", [prover for prover in PLACES if prover != "mutants"])
def test_a_prover_has_no_ids_of_its_own(prover: str) -> None:
    """Not even in the texts of its examples."""
    found = {
        (path.name, node.value)
        for path in sources(prover)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ID.search(node.value)
    }
    assert not found
