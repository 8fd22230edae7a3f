"""The account that PostgreSQL runs as for root, and why a program failed."""

from __future__ import annotations

import os
import pwd
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from lastcall.embedded import programs


def useradd_that_fails(monkeypatch: pytest.MonkeyPatch, *, accounts_after: int) -> list[Any]:
    """useradd finds the list of accounts locked; another program has added the user after so many tries."""
    tries: list[Any] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        tries.append(command)
        return subprocess.CompletedProcess(command, 1, "", "useradd: cannot lock /etc/passwd; try again later.\n")

    def account(name: str) -> SimpleNamespace:
        if len(tries) < accounts_after:
            raise KeyError(name)
        return SimpleNamespace(pw_uid=77)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", account)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(programs, "ACCOUNT_RETRY_SECONDS", 0.0)
    return tries


def test_two_first_starts_at_once_share_the_account_that_one_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = useradd_that_fails(monkeypatch, accounts_after=2)
    assert programs.owner_of_new_data() == 77
    assert len(tries) == 2


def test_an_account_that_cannot_be_added_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = useradd_that_fails(monkeypatch, accounts_after=1_000)
    with pytest.raises(programs.EmbeddedError, match=r"cannot lock /etc/passwd.*--database-url") as raised:
        programs.owner_of_new_data()
    assert "\n" not in str(raised.value)
    assert len(tries) == programs.ACCOUNT_TRIES_MAX


def test_a_program_that_failed_says_why_not_how_it_tidied_up() -> None:
    said = (
        'FATAL:  could not write to file "pg_wal/1": No space left on device\n'
        "child process exited with exit code 1\n"
        'initdb: removing contents of data directory "/data"\n'
    )
    assert programs.failure_line(said).endswith("No space left on device")
    assert programs.failure_line('initdb: error: locale "x" is not known\ninitdb: hint: try C\n').endswith("not known")
    assert programs.failure_line("killed\n") == "killed"
