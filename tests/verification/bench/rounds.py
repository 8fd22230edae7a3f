"""The rows that compare: the same load on each server in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from .answers import Answer
from .checks import turn_frames
from .contestants import FASTAPI, FLOOR, FORGETFUL, OURS, WEBSOCKETS, Contestant, Contestants
from .cpu import Meter, Usage, total
from .load_client import LoadClient

CLIENTS = 64
TURNS_PER_CONVERSATION = 50  # then new connections, so that a fast server's conversations do not grow longer
WARM_UP_TURNS = 3
SESSIONS_MAX = 1_000_000
GROUP = "turns"


@dataclass(frozen=True)
class Row:
    """One kind of load. sessions: connect, take one turn and close, instead of taking turns."""

    title: str
    answer: Answer
    clients: int = CLIENTS
    sessions: bool = False
    contestants: tuple[str, ...] = (OURS, FASTAPI, WEBSOCKETS, FLOOR)


ROWS = {
    "session": Row(
        "session: connect, a turn of 1 delta, close",
        Answer(1),
        sessions=True,
        contestants=(OURS, FORGETFUL, FASTAPI, WEBSOCKETS, FLOOR),
    ),
    "turn": Row("turn, 1 delta", Answer(1)),
    "burst": Row("turn, 20 deltas at once", Answer(20)),
    "paced": Row("turn, 20 deltas, 10 ms apart", Answer(20, 10)),
    "latency-1": Row("turn, 1 delta, 1 client", Answer(1), clients=1),
    "latency-8": Row("turn, 1 delta, 8 clients", Answer(1), clients=8),
}

PICTURED = ("session", "turn", "burst", "paced")  # the rows that are about processor time


@dataclass(frozen=True)
class Sample:
    """One measurement. count: of turns or sessions in so many seconds. latencies: in milliseconds, sorted.

    Processor time is in µs for each turn or session; that of the database and the load apart.
    """

    count: int
    seconds: float
    usage: Usage
    latencies: list[float] = field(repr=False)

    @property
    def rate(self) -> float:
        """Per second."""
        return self.count / self.seconds

    @property
    def server_us(self) -> float:
        return self.usage.server / self.count * 1e6

    @property
    def database_us(self) -> float:
        return self.usage.database / self.count * 1e6

    @property
    def load_us(self) -> float:
        return self.usage.load / self.count * 1e6

    @property
    def cpu_us(self) -> float:
        """Of server and database."""
        return self.server_us + self.database_us

    def percentile(self, percent: int) -> float:
        return (
            quantiles(self.latencies, n=100, method="inclusive")[percent - 1] if self.count > 1 else self.latencies[0]
        )

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    def figures(self) -> dict[str, Any]:
        """For machines."""
        return {
            "count": self.count,
            "server_us": round(self.server_us, 1),
            "database_us": round(self.database_us, 1),
            "load_us": round(self.load_us, 1),
            "per_second": round(self.rate, 1),
            "p50_ms": round(self.p50, 3),
            "p99_ms": round(self.p99, 3),
            "foreign_share": round(self.usage.foreign_share, 3),
            "waited_share": round(self.usage.waited_share, 3),
            "busy": self.usage.busy,
        }


Samples = dict[str, dict[str, list[Sample]]]  # by row and contestant, one for each round


def run_rounds(
    names: list[str], rounds: int, seconds: float, warm_up: float, contestants: Contestants, load: LoadClient
) -> Iterator[tuple[str, str, Sample]]:
    """Yields the row's name, the contestant's name and the sample, as they are measured.

    What is compared lies next to each other in time. warm_up: seconds of a contestant's first sample of a row, which is
    thrown away: interpreter, pools and prepared statements are warm then.
    """
    for number in range(rounds):
        for name in names:
            row = ROWS[name]
            for contestant in map(contestants.get, row.contestants):
                measure: Callable[..., Sample] = measure_sessions if row.sessions else measure_turns
                if number == 0 and warm_up:
                    measure(row, warm_up, contestant, load)
                yield name, contestant.name, measure(row, seconds, contestant, load)


def measure_sessions(row: Row, seconds: float, contestant: Contestant, load: LoadClient) -> Sample:
    meter = Meter(contestant.pid, contestant.postmaster, load.pid)
    result = load.do(
        "sessions",
        port=contestant.port,
        clients=row.clients,
        question=row.answer.question,
        frames=turn_frames(row.answer),
        seconds=seconds,
        count_max=SESSIONS_MAX,
    )
    contestant.settle()
    return Sample(result["count"], result["seconds"], meter.usage(), sorted(result["latencies"]))


def measure_turns(row: Row, seconds: float, contestant: Contestant, load: LoadClient, idle: int = 0) -> Sample:
    """Connecting and closing are not measured, nor what comes of them later. idle: sessions that stay open beside."""
    count, measured, usages = 0, 0.0, list[Usage]()
    latencies: list[float] = []
    turns = {"group": GROUP, "question": row.answer.question, "frames": turn_frames(row.answer)}
    while measured < seconds:
        load.do("open", group=GROUP, port=contestant.port, count=row.clients)
        load.do("turns", **turns, seconds=seconds, turns_max=WARM_UP_TURNS)
        meter = Meter(contestant.pid, contestant.postmaster, load.pid)
        result = load.do("turns", **turns, seconds=seconds - measured, turns_max=TURNS_PER_CONVERSATION)
        usages.append(meter.usage())
        load.do("close", group=GROUP)
        contestant.settle(idle)
        count, measured = count + result["count"], measured + result["seconds"]
        latencies += result["latencies"]
    return Sample(count, measured, total(usages), sorted(latencies))
