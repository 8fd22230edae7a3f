"""The load's process, as the benchmark uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..starvation import Failed

ROOT = Path(__file__).resolve().parents[3]
END_SECONDS = 10.0


class LoadClient:
    """Takes the commands of load.py, by their names and arguments."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Returns the result. Raises `Failed`."""
        self.begin(command, **arguments)
        return self.result()

    def begin(self, command: str, **arguments: Any) -> None:
        """`result` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        result: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in result:
            raise Failed(f"the load failed: {result['error']}")
        return result


@contextmanager
def open_load() -> Iterator[LoadClient]:
    """Ends the process on leaving, and with it all its connections."""
    command = [sys.executable, "-m", "tests.verification.bench.load"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield LoadClient(process)
        finally:
            process.kill()
