"""The queue of output: it never waits, keeps the order, has bounds, and tells of what it dropped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lastcall.logs import output_queue
from lastcall.logs.output_queue import OutputQueue, QueuedStream, lines_dropped, queued_output

PATIENCE_SECONDS = 10.0


class Pipe:
    """A pipe that is read only on demand."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def fill(self) -> None:
        """Leaves no room for another byte."""
        os.set_blocking(self.write_end, False)
        try:
            while True:
                os.write(self.write_end, b"." * 1024)
        except BlockingIOError:
            os.set_blocking(self.write_end, True)

    def read_lines(self, count: int) -> list[str]:
        data = b""
        while data.count(b"\n") < count:
            data += os.read(self.read_end, 65_536).replace(b".", b"")
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for fd in (pipe.read_end, pipe.write_end):
        with contextlib.suppress(OSError):
            os.close(fd)


def started(lines_max: int = 100, bytes_max: int = 100_000) -> OutputQueue:
    queue = OutputQueue(lines_max, bytes_max)
    queue.start()
    return queue


def test_lines_keep_their_order_on_all_descriptors(pipe: Pipe) -> None:
    queue = started(lines_max=1_000)
    other = os.dup(pipe.write_end)
    for number in range(500):
        queue.put(other if number % 3 else pipe.write_end, b"line %d\n" % number)
    assert queue.flush(PATIENCE_SECONDS)
    assert pipe.read_lines(500) == [f"line {number}" for number in range(500)]
    os.close(other)


@pytest.mark.parametrize(("lines_max", "bytes_max"), [(50, 1_000_000), (1_000_000, 50 * 100)])
def test_what_exceeds_either_bound_is_dropped_and_told_of_later(pipe: Pipe, lines_max: int, bytes_max: int) -> None:
    queue = started(lines_max, bytes_max)
    queue.note, queue.note_fd = "dropped {}".format, pipe.write_end
    pipe.fill()
    began = time.monotonic()
    for number in range(10_000):
        queue.put(pipe.write_end, b"%-99d\n" % number)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2, "nothing waited"
    assert not queue.flush(0.01)
    kept = 10_000 - queue.dropped
    assert kept <= 50
    lines = pipe.read_lines(kept + 1)
    assert [int(line) for line in lines[:kept]] == list(range(kept))
    assert lines[kept:] == [f"dropped {10_000 - kept}"]
    queue.put(pipe.write_end, b"after\n")
    assert pipe.read_lines(1) == ["after"], "told of once"


def test_a_line_after_a_loss_comes_after_the_line_about_it(pipe: Pipe) -> None:
    queue = OutputQueue(lines_max=10)  # not started: nothing is written
    queue.note, queue.note_fd = "dropped {}".format, pipe.write_end
    for number in range(15):
        queue.put(pipe.write_end, b"%d\n" % number)
    queue._lines = 4  # as if the thread had written six
    queue.put(pipe.write_end, b"after\n")
    queue.start()
    assert queue.flush(PATIENCE_SECONDS)
    assert pipe.read_lines(12) == [*map(str, range(10)), "dropped 5", "after"]


def test_a_closed_pipe_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    queue = started()
    for _ in range(5):
        queue.put(pipe.write_end, b"line\n")
        assert queue.flush(PATIENCE_SECONDS)
    assert queue.dropped == 5


def test_a_full_disk_costs_lines_until_there_is_room_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line that was still written does not run into the next one."""
    queue, write, room = started(), os.write, [3]

    def write_on_full_disk(fd: int, data: memoryview) -> int:
        if fd != pipe.write_end:
            return write(fd, data)
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        count = write(fd, data[: room[0]])
        room[0] -= count
        return count

    queue.note, queue.note_fd = "dropped {}".format, pipe.write_end
    monkeypatch.setattr(os, "write", write_on_full_disk)
    for line in (b"torn\n", b"lost\n"):
        queue.put(pipe.write_end, line)
        assert queue.flush(PATIENCE_SECONDS)
    room[0] = 10_000
    queue.put(pipe.write_end, b"again\n")
    assert queue.flush(PATIENCE_SECONDS)
    assert pipe.read_lines(3) == ["tor", "again", "dropped 2"]


def test_a_descriptor_that_was_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """As a terminal shared with a program that did so."""
    queue = started()
    pipe.fill()
    flags = fcntl.fcntl(pipe.write_end, fcntl.F_GETFL)
    fcntl.fcntl(pipe.write_end, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    queue.put(pipe.write_end, b"line\n")
    assert not queue.flush(0.05)
    assert pipe.read_lines(1) == ["line"]


def test_many_threads_lose_and_mix_nothing(pipe: Pipe) -> None:
    queue = started(lines_max=10_000, bytes_max=1_000_000)

    def put(mark: bytes) -> None:
        for _ in range(200):
            queue.put(pipe.write_end, mark * 20 + b"\n")

    with ThreadPoolExecutor(8) as pool:
        for thread in range(8):
            pool.submit(put, b"%d" % thread)
        lines = pipe.read_lines(1_600)
    assert {(line[:1] * 20, len(line)) for line in lines} == {(line, 20) for line in lines}
    assert queue.dropped == 0


def test_a_finalizer_may_print_while_a_line_is_queued(pipe: Pipe) -> None:
    """The garbage collector runs finalizers anywhere, also within `put`."""
    queue = started()
    done = threading.Event()

    def put_within_put() -> None:
        with queue._lock:
            queue.put(pipe.write_end, b"inner\n")
        done.set()

    threading.Thread(target=put_within_put, daemon=True).start()
    assert done.wait(PATIENCE_SECONDS)
    assert pipe.read_lines(1), "before the pipe is closed: its number may be another test's soon"


# --- the streams ------------------------------------------------------------------------------------------------------


def test_what_is_printed_goes_through_the_queue(capfd: pytest.CaptureFixture[str]) -> None:
    with queued_output():
        assert isinstance(sys.stdout, QueuedStream)
        print("to stdout", "in parts", sep=", ")
        print("to stderr", file=sys.stderr)
        sys.stdout.write("without an end")
        assert sys.stdout.encoding.lower() == "utf-8"
        assert not sys.stdout.isatty()
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]
    captured = capfd.readouterr()
    assert captured.out == "to stdout, in parts\nwithout an end"
    assert captured.err == "to stderr\n"
    assert not isinstance(sys.stdout, QueuedStream)


def test_what_cannot_be_written_does_not_delay_the_end_of_the_block(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_queue, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(output_queue, "_queue", None)
    with os.fdopen(os.dup(pipe.write_end), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        pipe.fill()
        with queued_output():
            print("line")
        assert isinstance(sys.stdout, QueuedStream), "whoever prints from here on must not wait either"
        print("late")
        assert lines_dropped() == 0
        assert pipe.read_lines(2) == ["line", "late"]


PROGRAM = """
import os, sys
from lastcall.logs import queued_output
with queued_output():
    for number in range(20_000):
        print("line", number)
{end}
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "print('late')"])
def test_what_is_queued_at_the_exit_is_written(end: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = answer.stdout.splitlines()
    assert len(lines) + answer.stderr.count("dropped") >= 9_000
    assert lines[0] == "line 0"
    assert answer.returncode == (3 if end.startswith("raise") else 0)
    assert (lines[-1] == "late") == end.startswith("print")
