"""Output that never waits for its reader: lines go through a bounded queue, and a thread writes them.

A pipe that nobody reads, a full disk or a paused terminal would otherwise stop the event loop in `write`.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TextIO

QUEUE_LINES_MAX = 10_000
QUEUE_BYTES_MAX = 4 * 1024 * 1024
PARTIAL_LINE_CHARS_MAX = 8_192  # of a line that has not ended yet; more is passed on as it is
WRITE_BYTES_MAX = 65_536  # in one call of write
FLUSH_SECONDS = 1.0  # at exit, for what is still queued
UNWRITABLE_SECONDS = 1.0  # waiting at a time for a descriptor that somebody made non-blocking

Note = Callable[[int], str]  # the line that says how many lines were dropped
_Item = tuple[int, bytes] | threading.Event  # a line and its descriptor; or a flush, which is set once it is reached


class OutputQueue:
    """Lines on their way to file descriptors, in one order for all of them.

    What exceeds the bounds is dropped; once it flows again, a line says how much. `put` may be called from any thread
    and, by a finalizer that logs, even within itself: hence the re-entrant lock and `SimpleQueue`.

    Attributes:
        dropped: Lines lost so far, also to write errors.
        note: Formats the line about them.
        note_fd: The descriptor that it goes to.
    """

    def __init__(self, lines_max: int = QUEUE_LINES_MAX, bytes_max: int = QUEUE_BYTES_MAX) -> None:
        self.dropped = 0
        self.note: Note = "{} lines of output were dropped".format
        self.note_fd = 2
        self._lines_max, self._bytes_max = lines_max, bytes_max
        self._lines = self._bytes = 0
        self._noted = 0  # of the dropped lines
        self._full = False
        self._failing = False  # the last write did not succeed
        self._lock = threading.RLock()
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._torn: set[int] = set()  # descriptors on which a write ended within a line

    def start(self) -> None:
        threading.Thread(target=self._write_for_ever, name="output", daemon=True).start()

    def put(self, fd: int, line: bytes) -> None:
        """Queues a line, or drops it if there is no room; never waits."""
        with self._lock:
            share = 2 if self._full else 1  # once full, it stays so until it is half empty: one note, not hundreds
            self._full = self._lines * share >= self._lines_max or self._bytes * share + len(line) > self._bytes_max
            if self._full:
                self.dropped += 1
                return
            if not self._failing:
                self._note_dropped()
            self._append(fd, line)

    def flush(self, seconds: float) -> bool:
        """Waits until what is queued by now is written. Returns whether it was, in that time."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(seconds)

    def _append(self, fd: int, line: bytes) -> None:
        self._lines += 1
        self._bytes += len(line)
        self._queue.put((fd, line))

    def _note_dropped(self) -> None:
        count, self._noted = self.dropped - self._noted, self.dropped
        if count:
            self._append(self.note_fd, self.note(count).encode(errors="replace") + b"\n")

    def _write_for_ever(self) -> None:
        while True:
            item: _Item | None = self._queue.get()
            while item is not None:
                if isinstance(item, threading.Event):
                    item.set()
                    item = None
                else:
                    item = self._write_batch(*item)

    def _write_batch(self, fd: int, first: bytes) -> _Item | None:
        """Writes lines for one descriptor at once; returns what came after them."""
        batch, size, item = [first], len(first), None
        while size < WRITE_BYTES_MAX and (item := self._next()) is not None:
            if isinstance(item, threading.Event) or item[0] != fd:
                break
            batch.append(item[1])
            size += len(item[1])
            item = None
        written = self._write(fd, b"".join(batch))
        with self._lock:
            self._lines -= len(batch)
            self._bytes -= size
            self._failing = not written
            if self._failing:
                self.dropped += len(batch)
            elif self._lines == 0:
                self._full = False
                self._note_dropped()
        return item

    def _next(self) -> _Item | None:
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def _write(self, fd: int, data: bytes) -> bool:
        """Writes all of it; False where the descriptor takes no more: the pipe is closed, or the disk full."""
        data = b"\n" + data if fd in self._torn else data
        done = 0
        while done < len(data):
            try:
                done += os.write(fd, memoryview(data)[done:])
            except BlockingIOError:
                select.select([], [fd], [], UNWRITABLE_SECONDS)
            except OSError:
                if done and not data[:done].endswith(b"\n"):
                    self._torn.add(fd)
                return False
        self._torn.discard(fd)
        return True


class QueuedStream(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr, for `print` and warnings as for the log; its lines go to the queue."""

    def __init__(self, stream: TextIO, queue: OutputQueue) -> None:
        self._stream, self._queue = stream, queue
        self._fd = stream.fileno()
        self._partial = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def buffer(self) -> object:
        """For those who write bytes; these do wait."""
        return self._stream.buffer

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._partial += text
        if "\n" in text or len(self._partial) > PARTIAL_LINE_CHARS_MAX:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Passes on what there is of a line; does not wait until it is written."""
        text, self._partial = self._partial, ""
        if text:
            self._queue.put(self._fd, text.encode(self.encoding, self.errors or "replace"))


_queue: OutputQueue | None = None  # the process's


@contextmanager
def queued_output() -> Iterator[None]:
    """Within the block, sys.stdout and sys.stderr never wait for their readers.

    Leaving it waits `FLUSH_SECONDS` at most for what is queued. Where that does not suffice, they stay as they are:
    whatever is printed later would wait for ever.
    """
    global _queue
    plain = sys.stdout, sys.stderr
    if not all(_has_descriptor(stream) for stream in plain):
        yield  # closed, or in memory: these do not wait
        return
    for stream in plain:
        stream.flush()
    _queue = OutputQueue()
    _queue.start()
    queued = QueuedStream(plain[0], _queue), QueuedStream(plain[1], _queue)
    sys.stdout, sys.stderr = queued
    try:
        yield
    finally:
        for stream in queued:
            stream.flush()
        if _queue.flush(FLUSH_SECONDS) and all(_takes_more(stream) for stream in queued):
            sys.stdout, sys.stderr = plain
            _queue = None


def flush_output(seconds: float = FLUSH_SECONDS) -> None:
    """Waits for queued lines to be written, where there is a queue: before an exit that skips all else."""
    if _queue is not None:
        _queue.flush(seconds)


def lines_dropped() -> int:
    """Lines of output that were lost because nobody took them, since the process started."""
    return _queue.dropped if _queue is not None else 0


def set_note(note: Note, stream: TextIO) -> None:
    """Sets the format and the place of the line that says how many lines were dropped."""
    if _queue is not None:
        _queue.note, _queue.note_fd = note, stream.fileno()


def _has_descriptor(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False


def _takes_more(stream: QueuedStream) -> bool:
    return bool(select.select([], [stream.fileno()], [], 0)[1])
