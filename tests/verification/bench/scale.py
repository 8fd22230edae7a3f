"""The rows of scale: many sessions, many streams, long conversations."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from .alone import IDLE, WAIT_SECONDS, Alone, Figures, ask_for_stalls
from .answers import Answer
from .checks import turn_frames
from .contestants import OURS, PEERS
from .cpu import Meter, rss_kib
from .load_client import open_load
from .rounds import ROWS, measure_turns

LONG = "long"
LONG_CLIENTS = 8
SETTLE_SECONDS = 1.0  # for memory to be allocated and returned before it is read
MEMORY_LOOKS = 10


class Scale(Alone):
    """Many of something."""

    def rows(self) -> dict[str, Callable[[], Figures]]:
        return {each.__name__: each for each in (self.idle, self.stall, self.beside, self.length, self.memory)}

    def idle(self) -> Figures:
        """KiB for each idle session: the slope between two numbers of them."""
        low, high = self._sizes.idle
        slopes = {}
        for name in (OURS, *PEERS):
            with self._contestants.started(name) as contestant:
                meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
                sizes = []
                for count in (low, high - low):
                    self._load.do("open", group=IDLE, port=contestant.port, count=count)
                    time.sleep(SETTLE_SECONDS)
                    sizes.append(rss_kib(contestant.pid))
                usage = meter.usage()
                self._load.do("close", group=IDLE)
            slopes[name] = round((sizes[1] - sizes[0]) / (high - low), 1)
        return {"kib_each": slopes[OURS], "peers": {name: slopes[name] for name in PEERS}}, usage

    def stall(self) -> Figures:
        """The longest stall of the loop, in milliseconds, under paced streams and a burst of new connections."""
        contestant, row = self._contestants.get(OURS), ROWS["paced"]
        with ExitStack() as stack:
            asking, connecting = (stack.enter_context(open_load()) for _ in range(2))
            self._contestants.place(0, asking.pid, connecting.pid)
            self._load.do("open", group=row.title, port=contestant.port, count=self._sizes.streams)
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid, asking.pid, connecting.pid)
            self._load.begin(
                "turns",
                group=row.title,
                question=row.answer.question,
                frames=turn_frames(row.answer),
                seconds=self._sizes.stall_seconds + 1,
                turns_max=1_000_000,
            )
            ask_for_stalls(asking, contestant, self._sizes.stall_seconds)
            time.sleep(self._sizes.stall_seconds / 2)
            count = self._sizes.connects
            connected = connecting.do("open", group=IDLE, port=contestant.port, count=count, at_once=count)
            stall, turns = float(asking.result()["text"]), self._load.result()
            usage = meter.usage()
            connecting.do("close", group=IDLE)
            self._load.do("close", group=row.title)
            contestant.settle()
        return {
            "longest_ms": round(stall * 1000, 1),
            "connects_ms": round(connected["seconds"] * 1000, 1),
            "turns_per_second": round(turns["count"] / turns["seconds"], 1),
        }, usage

    def beside(self) -> Figures:
        """Server µs of a turn beside so many idle sessions."""
        costs, open_now = {}, 0
        with self._contestants.started(OURS) as contestant:
            for count in self._sizes.beside:
                self._load.do("open", group=IDLE, port=contestant.port, count=count - open_now)
                open_now = count
                measure_turns(ROWS["turn"], self._seconds / 2, contestant, self._load, count)
                sample = measure_turns(ROWS["turn"], self._seconds, contestant, self._load, count)
                costs[str(count)] = round(sample.server_us, 1)
            self._load.do("close", group=IDLE)
        return {"server_us": costs, "ratio": _ratio(costs)}, sample.usage

    def length(self) -> Figures:
        """Server µs of a turn in conversations of so many items; and the longest one against the shortest."""
        contestant, answer = self._contestants.get(OURS), Answer(1)
        turns = {"group": LONG, "question": answer.question, "frames": turn_frames(answer)}
        costs, latencies = {}, {}
        for items in self._sizes.items:
            self._load.do("open", group=LONG, port=contestant.port, count=LONG_CLIENTS)
            self._load.do("fill", group=LONG, count=items)
            self._load.do("turns", **turns, seconds=self._seconds, turns_max=1)
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
            result = self._load.do("turns", **turns, seconds=self._seconds, turns_max=50)
            usage = meter.usage()
            self._load.do("close", group=LONG)
            contestant.settle()
            costs[str(items)] = round(usage.server / result["count"] * 1e6, 1)
            latencies[str(items)] = round(median(result["latencies"]), 2)
        return {"server_us": costs, "p50_ms": latencies, "ratio": _ratio(costs)}, usage

    def memory(self) -> Figures:
        """MiB of a server over many short sessions, after each tenth of them."""
        row, looks = ROWS["session"], []
        with self._contestants.started(OURS) as contestant:
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
            for _ in range(MEMORY_LOOKS):
                self._load.do(
                    "sessions",
                    port=contestant.port,
                    clients=row.clients,
                    question=row.answer.question,
                    frames=turn_frames(row.answer),
                    seconds=WAIT_SECONDS * MEMORY_LOOKS,
                    count_max=self._sizes.short_sessions // MEMORY_LOOKS,
                )
                contestant.settle()
                looks.append(round(rss_kib(contestant.pid) / 1024, 1))
            usage = meter.usage()
        return {"mib": looks, "growth_mib": round(looks[-1] - looks[1], 1)}, usage


def _ratio(costs: dict[str, float]) -> float:
    first, *_, last = costs.values()
    return round(last / first, 3)
