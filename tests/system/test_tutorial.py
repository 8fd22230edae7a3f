"""docs/tutorial.md, from its first command to its last, done as it says there."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from ..support.distributions import ROOT, foreign_environment
from ..support.embedded_data import reachable_directory
from ..support.processes import END_SECONDS
from ..support.terminal import CTRL_D, AtTerminal, at_terminal

pytestmark = pytest.mark.slow

FENCE = re.compile(r"^```(?:python (?P<file>\S+))?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
CHAT = re.compile(r"\.venv/bin/lastcall (chat --user \w+)")
SERVE = "scripts/serve "
ADDRESS = "127.0.0.1:8000"
# What these show comes a moment after a session has ended: memory, and a server that closes its sessions.
LATER = re.compile(r"\.venv/bin/lastcall (memories|sessions)\b")
LOOKS_MAX = 50  # each a start of the command
COMMAND_SECONDS = 60.0


def matches(wanted: str, seen: str) -> bool:
    """Whether an output reads as on the page, where … is anything within a line, and columns may be wider."""
    lines = (re.sub(r"(\\ )+", "[ ]+", re.escape(line.strip())).replace("…", ".*") for line in wanted.splitlines())
    return re.fullmatch("\n".join(lines), "\n".join(line.strip() for line in seen.splitlines())) is not None


class Reader:
    """Somebody who does what the page says, in a folder that stands for the checkout. printed: by the last command."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._environment = foreign_environment(
            LASTCALL_PORT=address.rpartition(":")[2], LASTCALL_CHAT_URL=f"http://{address}"
        )
        self._server: subprocess.Popen[str] | None = None
        self._reading = threading.Thread()  # what the server prints, so that it never waits for a reader
        self._chat: AtTerminal | None = None
        self._opened = ExitStack()
        self.printed = ""

    def close(self) -> None:
        self._opened.close()
        if self._server is not None:
            self._stop_server(self._server)

    def does(self, block: str) -> None:
        """Commands with what they print, or words in the open chat with its answers."""
        block = block.replace(ADDRESS, self._address)
        for step in filter(None, re.split(r"^(?=\$ )", block, flags=re.MULTILINE)):
            if not step.startswith("$ "):
                self._talk(step)
                continue
            command, _, wanted = step.removeprefix("$ ").partition("\n")
            chat = CHAT.fullmatch(command)
            if command.startswith(SERVE):
                self._serve(command, wanted)
            elif chat:
                self._chat = self._opened.enter_context(at_terminal(*shlex.split(chat[1])))
                self._talk(wanted)
            else:
                self._leave_chat()
                self._run(command, wanted)

    def _serve(self, command: str, wanted: str) -> None:
        """In the first terminal, where the server that ran there is stopped with Ctrl-C before."""
        if self._server is not None:
            self._stop_server(self._server)
        words = [str(ROOT / "scripts" / "serve"), *shlex.split(command)[1:]]
        self._server = subprocess.Popen(
            words,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = self._server.stdout
        assert lines is not None
        seen = deque[str]()
        for line in lines:
            seen.append(line)
            if matches(wanted, line):
                break
        else:
            raise AssertionError("".join(seen))
        self._reading = threading.Thread(target=seen.extend, args=(lines,), daemon=True)
        self._reading.start()

    def _stop_server(self, server: subprocess.Popen[str]) -> None:
        server.send_signal(signal.SIGINT)
        assert server.wait(END_SECONDS) == 0
        self._reading.join()
        assert server.stdout is not None
        server.stdout.close()

    def _talk(self, talk: str) -> None:
        assert self._chat is not None
        for line in talk.splitlines():
            if line.startswith("> "):
                self._chat.types(line.removeprefix("> ") + "\n")
            else:
                self._chat.sees(line)

    def _leave_chat(self) -> None:
        if self._chat is not None:
            self._chat.types(CTRL_D)
            self._chat.sees("--conversation")
            assert self._chat.ends() == 0
            self._chat = None

    def _run(self, command: str, wanted: str) -> None:
        """In the second terminal, which keeps what was exported there."""
        for _ in range(LOOKS_MAX if LATER.match(command) else 1):
            self.printed = self._shell(command)
            if matches(wanted, self.printed):
                return
        raise AssertionError(f"$ {command}\n{self.printed}")

    def _shell(self, command: str) -> str:
        kept = self._folder / "environment"
        done = subprocess.run(
            ["sh", "-c", f"{command}\nenv -0 >{shlex.quote(str(kept))}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        variables = (each.partition("=") for each in kept.read_text().split("\0") if each)
        self._environment = {name: value for name, _, value in variables}
        return done.stdout


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def reader(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    with reachable_directory() as folder:
        (folder / ".venv").symlink_to(sys.prefix)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LASTCALL_CHAT_URL", f"http://{address}")
        reader = Reader(folder, address)
        try:
            yield reader
        finally:
            reader.close()


def test_whoever_follows_the_page_sees_what_it_says(reader: Reader, address: str) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = list(FENCE.finditer(page))
    assert 2 * len(blocks) == page.count("```")
    for block in blocks:
        if block["file"]:
            Path(block["file"]).write_text(block["text"])
        else:
            reader.does(block["text"])
    key = reader.printed.splitlines()[0]
    assert httpx2.get(f"http://{address}/console").status_code == 200
    truth = httpx2.get(f"http://{address}/v1/admin/truth", headers={"authorization": f"Bearer {key}"})
    assert truth.status_code == 200, truth.text
