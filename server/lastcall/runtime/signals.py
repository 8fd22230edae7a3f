"""Which signals a server takes, and what each of them means."""

from __future__ import annotations

import signal
from enum import Enum

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
ALL_END = signal.SIGQUIT  # from a supervisor: no other worker stays that would take those who wait to be accepted
BURST_SECONDS = 0.25  # a terminal and a wrapper both pass Ctrl-C on: that is one wish to end, not impatience

# What the kernel sends because of a fault of the process itself; it cannot go on after them.
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGEMT")
# By default these stop, continue or do nothing. SIGPIPE is ignored by Python, SIGKILL cannot be taken.
_NOT_FATAL = ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGINFO", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU")
_OTHERS = ("SIGKILL", "SIGPIPE")


class Meaning(Enum):
    """What the server does about a signal."""

    BEGIN = "begin"  # the shutdown
    HURRY = "hurry"  # cut its waiting short
    RELOAD = "reload"  # read the certificate again
    NOTHING = "nothing"


def signals_to_take() -> list[int]:
    """All that would end the process. One that was ignored when it started stays ignored, as nohup wants it.

    But SIGINT and SIGQUIT, which a shell's background jobs ignore, and SIGTERM always end a server.
    """
    left = {getattr(signal, name, None) for name in (*_FAULTS, *_NOT_FATAL, *_OTHERS)}
    always = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    return [
        int(number)
        for number in sorted(signal.valid_signals() - left)
        if number in always or signal.getsignal(number) is signal.SIG_DFL
    ]


def signal_name(number: int) -> str:
    """Its name; real-time signals have none but the first and the last."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


class SignalReader:
    """Tells what a signal means by those before it. reloads: SIGHUP is about certificates, not about the end."""

    def __init__(self, *, reloads: bool) -> None:
        self._reloads = reloads
        self._counted_at: float | None = None  # the last signal that had an effect on the end

    def ends(self, number: int) -> bool:
        """Whether it ends the server."""
        return number in ENDING and not (self._reloads and number == signal.SIGHUP)

    def meaning(self, number: int, now: float) -> Meaning:
        """Called once for each signal. now: seconds of a monotonic clock."""
        if not self.ends(number):
            return Meaning.RELOAD if number == signal.SIGHUP else Meaning.NOTHING
        before, first = self._counted_at, self._counted_at is None
        if before is not None and now - before < BURST_SECONDS:
            return Meaning.NOTHING
        self._counted_at = now
        return Meaning.BEGIN if first else Meaning.HURRY
