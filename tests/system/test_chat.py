"""`lastcall chat`, as a person at a terminal and a program in a pipe use it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ..support.lastcall_command import process
from ..support.processes import ServerProcess, run_server
from ..support.terminal import CTRL_C, CTRL_D, WAIT_SECONDS, AtTerminal, at_terminal
from .official.agent import ENDLESS, RECITE

AGENT = ("--agent", "tests.system.official.agent:Patient")
LOST = "(the connection was lost here)"


@contextmanager
def person(server: ServerProcess, *arguments: str) -> Iterator[AtTerminal]:
    """Somebody who talks, at a terminal of their own."""
    with at_terminal("chat", "--url", server.url, "--user", "ada", *arguments) as somebody:
        somebody.sees("> ")
        yield somebody


def leaves(somebody: AtTerminal) -> int:
    somebody.types(CTRL_D)
    return somebody.ends()


@pytest.fixture
def server(database_url: str, sql: object) -> Iterator[ServerProcess]:
    with run_server("--database-url", database_url, *AGENT) as running:
        yield running


def again(server: ServerProcess, database_url: str) -> tuple[str, ...]:
    """Arguments for another server in the place of one that is gone."""
    return ("--database-url", database_url, *AGENT, "--port", server.url.rpartition(":")[2])


def test_one_turn_prints_its_answer_alone(server: ServerProcess) -> None:
    done = process("chat", "--url", server.url, "Hello,", "you.")
    assert (done.code, done.out, done.err) == (0, "You said: Hello, you.\n", "")


def test_each_line_of_a_pipe_is_a_turn_of_one_conversation(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "lastcall", "chat", "--url", server.url]
    said = f"one\n\nzwölf\n{RECITE}"
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
    recited = "user: one\nassistant: You said: one\nuser: zwölf\nassistant: You said: zwölf\n"
    assert done.stdout == f"You said: one\nYou said: zwölf\n{recited}"


def test_ctrl_c_stops_an_answer_and_ends_the_talk_where_there_is_none(server: ServerProcess) -> None:
    with person(server) as ada:
        ada.types(f"{ENDLESS}\n")
        ada.sees("Well …")
        ada.types(CTRL_C)
        ada.sees("(stopped)")
        ada.sees("> ")
        ada.types("Still there?\n")
        ada.sees("You said: Still there?")
        ada.sees("> ")
        ada.types(CTRL_C)
        ada.sees("lastcall chat --conversation conv_")
        assert ada.ends() == 0


def test_a_conversation_is_shown_again_and_goes_on(server: ServerProcess) -> None:
    with person(server) as ada:
        ada.types("before\n")
        ada.sees("You said: before")
        ada.types(CTRL_D)
        ada.sees("--conversation ")
        conversation = ada.sees("\n").strip()
        assert ada.ends() == 0
    with at_terminal("chat", "--url", server.url, "--user", "ada", "--conversation", conversation) as somebody:
        somebody.sees("> before")
        somebody.sees("You said: before")
        somebody.types(f"{RECITE}\n")
        somebody.sees("user: before")
        assert leaves(somebody) == 0


def test_what_is_said_after_a_crash_of_the_server_is_said_once(server: ServerProcess, database_url: str) -> None:
    with person(server) as ada:
        ada.types("one\n")
        ada.sees("> ")
        server.stop(signal.SIGKILL)
        ada.sees("(the connection broke)")
        ada.types("two\n")
        ada.sees("(the connection is lost; trying again)")
        with run_server(*again(server, database_url)):
            ada.sees("You said: two")
            ada.types(f"{RECITE}\n")
            ada.sees("user: one")
            assert ada.sees("assistant: You said: two").count("user: two") == 1
            assert leaves(ada) == 0


def test_an_answer_that_a_crash_cut_off_is_told_as_that_or_given_anew(server: ServerProcess, database_url: str) -> None:
    with person(server) as ada:
        ada.types(f"{ENDLESS}\n")
        ada.sees("Well …")
        server.stop(signal.SIGTERM)  # the answer is kept with what was said of it
        with run_server(*again(server, database_url)):
            ada.sees(LOST)
            ada.types("Still there?\n")
            ada.sees("You said: Still there?")
            assert leaves(ada) == 1  # something was not answered


def test_a_session_that_somebody_closes_is_told_at_once(server: ServerProcess, database_url: str) -> None:
    with person(server) as ada:
        ada.types("hello\n")
        ada.sees("You said: hello")
        (active,) = json.loads(process("sessions", "--active", "--json", "--database-url", database_url).out)
        assert process("sessions", "close", active["session_id"], "--database-url", database_url).code == 0
        ada.sees("closed by somebody else")
        ada.types("And now?\n")  # somebody who goes on wants another session
        ada.sees("You said: And now?")
        assert leaves(ada) == 0


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--url", "http://127.0.0.1:9", "hi"], "lastcall serve starts one"),
        (["--url", "ftp://127.0.0.1", "hi"], "is not like http://127.0.0.1:8000"),
        (["--url", "http://127.0.0.1:port", "hi"], "is not like http://127.0.0.1:8000"),
        (["--conversation", "mine", "hi"], "conv_ and 32 hex digits"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(arguments: list[str], fix: str, server: ServerProcess) -> None:
    where = [] if "--url" in arguments else ["--url", server.url]
    done = process("chat", *where, *arguments)
    assert done.code == 2
    assert done.out == ""
    assert re.fullmatch(r"lastcall: .+\n", done.err)
    assert fix in done.err


def test_a_key_is_asked_for_and_says_who_one_is(server: ServerProcess, database_url: str) -> None:
    created = process("keys", "create", "ada", "--json", "--database-url", database_url)
    done = process("chat", "--url", server.url, "hi")
    assert (done.code, done.out) == (2, "")
    assert "LASTCALL_CHAT_KEY" in done.err
    done = process("chat", "--url", server.url, "hi", LASTCALL_CHAT_KEY=json.loads(created.out)["key"])
    assert (done.code, done.out) == (0, "You said: hi\n")
    (session,) = json.loads(process("sessions", "--json", "--database-url", database_url).out)
    assert session["user_id"] == "ada"
