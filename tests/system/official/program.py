"""A client program as tests drive it: asked for one thing after another, every frame that it received checked."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from . import frames

ROOT = Path(__file__).parents[3]
START_SECONDS = 120.0  # the SDKs take seconds of a processor to import
REPLY_SECONDS = 20.0
END_SECONDS = 5.0


class Failed(AssertionError):
    """The client failed to do it; the message is the client's own."""


class Client(Protocol):
    """A client of any kind, driven by verbs."""

    frames: list[dict[str, Any]]

    def do(self, verb: str, *arguments: object) -> Any: ...


class Program:
    """A client in a process of its own. `frames` are the events that it has received."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.frames: list[dict[str, Any]] = []
        self._process = process
        self._is_ready = False
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def do(self, verb: str, *arguments: object) -> Any:
        """Makes the client do something. Returns its result; raises `Failed`, or AssertionError for a bad frame."""
        if not self._is_ready:
            self._is_ready = self._next("start", START_SECONDS)["done"] == "ready"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": verb, "with": arguments}) + "\n")
        self._process.stdin.flush()
        while True:
            answer = self._next(verb, REPLY_SECONDS)
            if "frame" in answer:
                self.frames.append(answer["frame"])
                frames.check(answer["frame"])
            elif "failed" in answer:
                raise Failed(f"{verb}: {answer['failed']}")
            else:
                return answer["done"]

    def _next(self, verb: str, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            recent = [frame["type"] for frame in self.frames[-10:]]
            raise Failed(f"{verb}: nothing within {seconds:g} s; the last frames: {recent}") from None
        if line is None:
            raise Failed(f"{verb}: the program ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def run_program(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Starts a client program, and ends it afterwards."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(env or {})}
    )
    try:
        yield Program(process)
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """By the end of its input, else by force."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def python(module: str) -> list[str]:
    """The command of a Python program of this package."""
    return [sys.executable, "-m", f"tests.system.official.{module}"]
