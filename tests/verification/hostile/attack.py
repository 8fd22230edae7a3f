"""The bad peers, in a process of their own: `python -m tests.verification.hostile.attack PORT SEED INPUTS SECONDS`.

Writes a JSON object per line to stdout: how many inputs were sent and what the first answers were, so far; and when
this process itself was late.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import trio

from ..starvation import Heartbeat
from .inputs import Input, inputs

AT_ONCE = 150
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 51)]  # the healthy clients are at 127.0.0.1
INPUT_SECONDS_MAX = 8.0  # for one input, whatever the server does
SILENCE_SECONDS = 1.5  # how long a silent peer stays
READ_SECONDS = 0.5  # from the last byte sent to the end
ANSWER_SECONDS = 2.0  # for the answer to a handshake or a request
READ_BYTES = 65_536
REPORT_SECONDS = 0.5
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Attack:
    """Sends all inputs, 150 at a time."""

    def __init__(self, port: int, inputs: Iterator[Input]) -> None:
        self._port = port
        self._inputs = inputs
        self._addresses = itertools.cycle(ADDRESSES)
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        async with trio.open_nursery() as reporting:
            reporting.start_soon(self._report_regularly)
            reporting.start_soon(Heartbeat(lambda begin, end: _write({"late": [begin, end]})).run)
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(self._work, until)
            reporting.cancel_scope.cancel()
        self.report()

    async def _report_regularly(self) -> None:
        while True:
            await trio.sleep(REPORT_SECONDS)
            self.report()

    def report(self) -> None:
        _write({"sent": self.sent, "answered": self.answered})

    async def _work(self, until: float) -> None:
        for each in self._inputs:
            with trio.move_on_after(INPUT_SECONDS_MAX):
                await self._send(each, next(self._addresses))
            self.sent[each.kind] += 1
            if trio.current_time() > until:
                return

    async def _send(self, each: Input, address: str) -> None:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port, local_address=address)
        except OSError:
            self.answered["no connection"] += 1
            return
        answered = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                if each.reads:
                    nursery.start_soon(self._read, stream, answered)
                with suppress(*BROKEN):
                    for data, seconds in each.pieces:
                        await trio.sleep(seconds)
                        await stream.send_all(data)
                        # Frames that come before the handshake's answer are not read as frames.
                        if each.reads and (each.opens or each.end == "read"):
                            with trio.move_on_after(ANSWER_SECONDS):
                                await answered.wait()
                    await _end(stream, each.end)
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def _read(self, stream: trio.SocketStream, answered: trio.Event) -> None:
        with suppress(*BROKEN):
            while data := await stream.receive_some(READ_BYTES):
                if not answered.is_set():
                    self.answered[_status(data)] += 1
                answered.set()
        answered.set()


def _write(report: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _status(data: bytes) -> str:
    return data[9:12].decode("latin-1") if data.startswith(b"HTTP/1.") else "other"


async def _end(stream: trio.SocketStream, end: str) -> None:
    match end:
        case "half-close":
            await stream.send_eof()
            await trio.sleep(READ_SECONDS)
        case "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        case "silence":
            await trio.sleep(SILENCE_SECONDS)
        case "read":
            await trio.sleep(READ_SECONDS)


async def main(port: int, seed: int, count: int, seconds: float) -> None:
    await Attack(port, inputs(seed, count)).run(seconds)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
