"""What signals mean: which are taken, which end the server, and what counts as a second one."""

from __future__ import annotations

import signal

import pytest
from lastcall.runtime.signals import BURST_SECONDS, ENDING, Meaning, SignalReader, signal_name, signals_to_take

# By signal(7) of Linux: the default action of all others ends a process.
HARMLESS_BY_DEFAULT = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
NOT_OURS = {"SIGKILL", "SIGPIPE", "SIGXFSZ"}  # Python ignores the latter two


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal is handled but those that Python handles."""
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN if number in ignored else signal.SIG_DFL)


def test_every_signal_that_would_end_the_process_is_taken(defaults: None) -> None:
    every = {signal_name(number) for number in signal.valid_signals()}
    assert {signal_name(number) for number in signals_to_take()} == every - HARMLESS_BY_DEFAULT - FAULTS - NOT_OURS


def test_what_was_ignored_from_the_start_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup. The background jobs of a script ignore SIGINT too, but a server can always be ended."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    assert signals_to_take() == [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("again", ENDING)
def test_the_first_begins_and_one_after_a_burst_hurries(number: int, again: int) -> None:
    reader = SignalReader(reloads=False)
    assert reader.meaning(number, 100.0) is Meaning.BEGIN
    assert reader.meaning(again, 100.0 + BURST_SECONDS / 2) is Meaning.NOTHING
    assert reader.meaning(again, 100.0 + BURST_SECONDS * 0.99) is Meaning.NOTHING
    assert reader.meaning(again, 100.0 + BURST_SECONDS) is Meaning.HURRY
    assert reader.meaning(again, 100.0 + BURST_SECONDS * 3) is Meaning.HURRY


def test_a_key_held_down_hurries() -> None:
    """A burst is counted from its first signal, not from its last."""
    reader = SignalReader(reloads=False)
    meanings = [reader.meaning(signal.SIGINT, step * BURST_SECONDS / 4) for step in range(5)]
    assert meanings == [Meaning.BEGIN, *[Meaning.NOTHING] * 3, Meaning.HURRY]


def test_sighup_is_about_certificates_where_there_are_some() -> None:
    reader = SignalReader(reloads=True)
    assert reader.meaning(signal.SIGHUP, 1.0) is Meaning.RELOAD
    assert reader.meaning(signal.SIGTERM, 1.0) is Meaning.BEGIN
    assert reader.meaning(signal.SIGHUP, 2.0) is Meaning.RELOAD
    assert reader.meaning(signal.SIGTERM, 3.0) is Meaning.HURRY


def test_all_others_mean_nothing_before_and_after() -> None:
    reader = SignalReader(reloads=False)
    for number in sorted(signal.valid_signals() - set(ENDING)):
        assert reader.meaning(number, 0.0) is Meaning.NOTHING
    assert reader.meaning(signal.SIGTERM, 0.1) is Meaning.BEGIN


def test_every_signal_has_a_name() -> None:
    assert signal_name(signal.SIGHUP) == "SIGHUP"
    assert signal_name(signal.SIGRTMIN + 1) == "SIGRTMIN+1"
