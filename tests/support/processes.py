"""`lastcall serve` in a process of its own, as users run it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

START_SECONDS = 30.0
END_SECONDS = 30.0


class ServerProcess:
    """A running server. `url` is http://127.0.0.1:PORT, `ready` the `ready` event of its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.ready = self.wait_for("ready")
        self.url: str = self.ready["url"]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def wait_for(self, name: str) -> dict[str, Any]:
        """Waits for the next event of this name in the server's log, and returns it."""
        while True:
            event = self._events.get(timeout=START_SECONDS)
            if event is None:
                raise AssertionError(f"the server ended with {self.process.wait()} before {name}: {self.log}")
            self.log.append(event)
            if event["event"] == name:
                return event

    def hurry(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Repeats a signal until it counts as the second one: what comes right after the first belongs to a burst."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.process.send_signal(number)
            if self.wait_for("signal")["does"] == "hurry":
                return
        raise AssertionError(f"no signal counts as a second one: {self.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def stop_and_read(self) -> list[dict[str, Any]]:
        """Ends the server and returns its whole log."""
        self.stop()
        while (event := self._events.get(timeout=END_SECONDS)) is not None:
            self.log.append(event)
        return self.log


@contextmanager
def run_server(*arguments: str, env: dict[str, str] | None = None) -> Iterator[ServerProcess]:
    """Starts `lastcall serve` with a free port and JSON logs, waits until it is ready, and ends it afterwards."""
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--json-logs", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield ServerProcess(process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()
