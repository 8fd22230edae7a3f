"""What all provers' commands share: exit codes, interrupts, and output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import click
import pytest
import trio
from rich.console import Console

from ..support.command_line import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_TOO_BUSY,
    EXIT_USAGE,
    TooBusy,
    command,
    conclude,
    folder,
    hear_hangups,
    json_option,
    run,
)


class NoResult(Exception):
    """A failure that keeps a command from its result."""


async def failing(error: BaseException) -> None:
    raise error


async def failing_in_a_nursery(error: BaseException) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failing, error)


IN_A_NURSERY: dict[str, BaseException] = {
    "no result in a nursery": NoResult("no database"),
    "no time in a nursery": TooBusy("no time"),
    "crash": ZeroDivisionError(),
    "Ctrl-C in a nursery": KeyboardInterrupt(),
}


@command("scripts/prove")
@click.option("--ending", default="held")
@json_option
def prove(*, ending: str, as_json: bool) -> int:
    if ending in IN_A_NURSERY:
        trio.run(failing_in_a_nursery, IN_A_NURSERY[ending])
    match ending:
        case "no result":
            raise NoResult("no database")
        case "Ctrl-C":
            raise KeyboardInterrupt
        case "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        case "mistake":
            raise click.UsageError("--ending has no such value.")
    say = lambda result, console: console.print(f"held: {result['ok']}")  # noqa: E731
    return conclude({"ok": ending == "held", "too_busy": ending == "too busy"}, say, Console(stderr=as_json))


def proved(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prove", *arguments])
    return run(prove, NoResult)


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("held", 0, ""),
        ("broken", EXIT_BROKEN, ""),
        ("too busy", EXIT_TOO_BUSY, ""),
        ("no time in a nursery", EXIT_TOO_BUSY, "scripts/prove: no time\n"),
        ("no result", EXIT_BROKEN, "scripts/prove: no database\n"),
        ("no result in a nursery", EXIT_BROKEN, "scripts/prove: no database\n"),
        ("mistake", EXIT_USAGE, "scripts/prove: --ending has no such value. See scripts/prove --help.\n"),
        ("Ctrl-C", EXIT_INTERRUPTED, "\n"),
        ("Ctrl-C in a nursery", EXIT_INTERRUPTED, ""),
        ("SIGTERM", EXIT_INTERRUPTED, "\n"),
    ],
)
def test_each_ending_has_an_exit_code_and_at_most_one_line_on_stderr(
    ending: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert proved(monkeypatch, "--ending", ending) == code
    assert capsys.readouterr().err == said
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_started_under_nohup_does_not_ignore_a_closed_terminal() -> None:
    """Servers keep a SIGHUP ignored that was ignored at their start: a prover under nohup would wait for their end."""
    show = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout == "True\n"
        hear_hangups()
        signal.raise_signal(signal.SIGHUP)
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout == "False\n"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_unexpected_exception_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        proved(monkeypatch, "--ending", "crash")
    assert caught.group_contains(ZeroDivisionError)


def test_figures_are_the_last_line_of_json_or_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proved(monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"ok": True, "too_busy": False}
    assert proved(monkeypatch) == 0
    assert capsys.readouterr().out == "held: True\n"


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_stays_only_if_it_is_kept_and_then_is_printed(
    keep: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with folder("proof-", Console(), keep=keep) as directory:
        (directory / "log").touch()
    assert directory.exists() is keep
    assert (str(directory) in capsys.readouterr().out) is keep
