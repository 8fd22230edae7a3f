"""Runs mutants, each in a scratch copy of the code, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import trio

from ..promises import Promise
from .mutant import ROOT, Mutant, mutated

COPIED = ("server", "tests", "schema.sql", "pyproject.toml")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules")  # seven thousand files, of no use here
SEEDS_MAX = 400  # within which a mistake has to be seen
PROCESS_SECONDS_MAX = 1_200.0  # for the seeds or the tests of one mutant
INTERRUPTED_SECONDS_MAX = 15.0  # for a process to stop its PostgreSQL
OUTPUT_CHARS_MAX = 300
TEST_FAILED = 1  # pytest's exit code; others are no verdict
STATEMENTS_VALID = "tests/integration/store/test_queries.py::test_every_statement_is_valid_on_the_schema"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a mutant, or of a run without one.

    promise: the one that was reported, after so many seeds; None: none of those that were asked for.
    seeds: none, where the simulation came to no verdict; `example` has its last words then.
    others: what else was reported, by the number of seeds. test: whether a test was run, and no seed.
    """

    name: str
    promise: str | None
    seeds: int
    seconds: float
    example: str
    others: dict[str, int] = field(default_factory=dict)
    test: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """A copy of the code, which later changes to the original do not reach.

    bytecode: a folder for it, since compiling everything takes longer than most tests.
    """

    folder: Path
    bytecode: Path

    @contextmanager
    def mistaken(self, mutant: Mutant) -> Iterator[None]:
        """Has the mistake in it within the block."""
        path = self.folder / mutant.file
        text, times = path.read_text(), path.stat()
        path.write_text(mutated(mutant, self.folder))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its bytecode holds again

    def environment(self) -> dict[str, str]:
        """Of processes in which this copy's package is found before the installed one.

        Nothing of a pytest that this process runs in: its options are not for the tests of a mutant.
        """
        without = ("PYTEST_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(without)}
        return {**inherited, "PYTHONPATH": str(self.folder / "server"), "PYTHONPYCACHEPREFIX": str(self.bytecode)}


@contextmanager
def copies(count: int) -> Iterator[list[Code]]:
    """Copies of the code, with one folder for the bytecode of all."""
    with TemporaryDirectory(prefix="lastcall-mutants-") as folder:
        codes = [Code(Path(folder) / str(number), Path(folder) / "bytecode") for number in range(count)]
        for code in codes:
            _copy_code(code.folder)
        yield codes


def _copy_code(target: Path) -> None:
    target.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=NOT_COPIED)
        else:
            shutil.copy2(ROOT / name, target / name)


def seeds_of(mutant: Mutant, seeds_max: int) -> Sequence[int]:
    """The seeds that have to see it, in the order in which they are tried."""
    return [mutant.hint, *(seed for seed in range(seeds_max) if seed != mutant.hint)][:seeds_max]


async def _run(code: Code, *command: str) -> CompletedProcess[bytes] | None:
    """Runs a module of Python in a copy of the code.

    Returns None where it took longer than `PROCESS_SECONDS_MAX`.
    """
    with trio.move_on_after(PROCESS_SECONDS_MAX):
        return await trio.run_process(
            [sys.executable, "-m", *command],
            cwd=code.folder,
            env=code.environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,  # Ctrl-C reaches it once, by `_interrupt`
            deliver_cancel=_interrupt,
        )
    return None


async def _interrupt(process: trio.Process) -> None:
    """As Ctrl-C does: a kill would leave its PostgreSQL running."""
    process.send_signal(signal.SIGINT)
    await trio.sleep(INTERRUPTED_SECONDS_MAX)
    process.kill()


def _last_words(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-OUTPUT_CHARS_MAX:]


async def look(name: str, code: Code, seeds: Sequence[int], promises: Collection[str]) -> Verdict:
    """What the simulation in a copy of the code reports."""
    began = time.perf_counter()
    chosen = ",".join(map(str, seeds))
    run = await _run(code, "tests.verification.simulation.until_broken", chosen, *sorted(promises))
    seconds = round(time.perf_counter() - began, 1)
    if run is None:
        return Verdict(name, None, 0, seconds, f"no verdict within {PROCESS_SECONDS_MAX:g} s")
    if run.returncode:
        return Verdict(name, None, 0, seconds, _last_words(run.stderr))
    return Verdict(name, seconds=seconds, **json.loads(run.stdout.splitlines()[-1]))


async def ask(name: str, code: Code, tests: Collection[str], promise: str, *, valid: str | None = None) -> Verdict:
    """What tests in a copy of the code say, on a PostgreSQL of their own: the promise is broken where one fails.

    valid: a test that has to hold all the same; where it fails, there is no verdict.
    """
    began = time.perf_counter()
    with TemporaryDirectory(prefix="lastcall-mutant-report-") as folder:
        report = Path(folder) / "report.xml"
        first = () if valid is None else (valid,)
        options = ("-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}")
        run = await _run(code, "pytest", *options, *first, *tests)
        seconds = round(time.perf_counter() - began, 1)
        if run is None:
            return Verdict(name, None, 0, seconds, f"no verdict within {PROCESS_SECONDS_MAX:g} s", test=True)
        failed = _failed(report) if run.returncode == TEST_FAILED else []
    seen = bool(failed) and not (valid and valid.partition("::")[2] in failed)
    example = f"failed: {', '.join(failed)}" if seen else _last_words(run.stdout)
    return Verdict(name, promise if seen else None, 0, seconds, example, test=True)


def _failed(report: Path) -> list[str]:
    """The names of the tests that failed, from pytest's report. Errors of fixtures are no failures."""
    cases = ET.parse(report).iter("testcase")
    return [case.attrib["name"] for case in cases if case.find("failure") is not None]


async def try_mutant(mutant: Mutant, code: Code, seeds_max: int) -> Verdict:
    """Lets the simulation, or the mutant's test, look at a copy of the code with the mistake in it."""
    with code.mistaken(mutant):
        if mutant.test is not None:
            valid = STATEMENTS_VALID if mutant.file.endswith(".sql") else None
            return await ask(mutant.name, code, [mutant.test], min(mutant.promises), valid=valid)
        return await look(mutant.name, code, seeds_of(mutant, seeds_max), mutant.promises)


async def try_all(
    mutants: Sequence[Mutant], codes: Sequence[Code], seeds_max: int, told: Callable[[Verdict], None]
) -> list[Verdict]:
    """All verdicts, in the order in which they came; at once, as many as there are copies of the code."""
    verdicts: list[Verdict] = []
    left = iter(mutants)

    async def work(code: Code) -> None:
        for mutant in left:
            verdicts.append(await try_mutant(mutant, code, seeds_max))
            told(verdicts[-1])

    async with trio.open_nursery() as nursery:
        for code in codes:
            nursery.start_soon(work, code)
    return verdicts


async def try_sound(seeds: Sequence[int], tests: Collection[str], codes: Sequence[Code]) -> list[Verdict]:
    """What breaks in the code as it is, on the seeds and tests in which the mistakes were seen: not their doing."""
    parts: list[Verdict] = []

    async def part(code: Code, share: Sequence[int]) -> None:
        parts.append(await look("(none)", code, share, tuple(Promise)))

    async with trio.open_nursery() as nursery:
        for number, code in enumerate(codes[: len(seeds)]):
            nursery.start_soon(part, code, seeds[number :: len(codes)])
    if tests:
        parts.append(await ask("(none)", codes[0], sorted(set(tests)), "a test fails"))
    return [verdict for verdict in parts if verdict.promise or not (verdict.seeds or verdict.test)]
