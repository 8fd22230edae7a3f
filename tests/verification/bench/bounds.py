"""What the figures must be, and should be; and what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from .contestants import FLOOR, OURS, PEERS
from .rounds import Sample, Samples

Cost = Callable[[Sample], float]


@dataclass(frozen=True)
class Measured:
    """A figure and its range over the rounds; for one that was measured once, all three are the same."""

    value: float
    low: float
    high: float


def once(value: float) -> Measured:
    return Measured(value, value, value)


def of_rounds(values: list[float]) -> Measured:
    return Measured(median(values), min(values), max(values))


Measure = Callable[[Samples, Mapping[str, Any]], Measured]  # of the rounds, and of the rows that measure us alone


@dataclass(frozen=True)
class Bound:
    """more: bigger is better. row: the one that has to be measured for it, as `--only` calls it."""

    title: str
    row: str
    must: float
    goal: float
    more: bool
    unit: str
    measure: Measure

    def shown(self, bound: float) -> str:
        """One of its two bounds, for people."""
        return f"{'≥' if self.more else '≤'} {bound:g} {self.unit}"

    def verdict(self, measured: Measured) -> Literal["goal", "must", "missed"]:
        for name, bound in (("goal", self.goal), ("must", self.must)):
            if measured.value >= bound if self.more else measured.value <= bound:
                return name  # type: ignore[return-value]
        return "missed"


def _per_round(row: str, compare: Callable[[float, float], float], cost: Cost) -> Measure:
    """Compares our cost with that of the better peer, in each round."""
    return lambda samples, _: of_rounds(
        [
            compare(cost(ours), min(cost(peer) for peer in peers))
            for ours, *peers in zip(*(samples[row][name] for name in (OURS, *PEERS)), strict=True)
        ]
    )


def _times_less(row: str, cost: Cost) -> Measure:
    """How many times less we cost than the better peer."""
    return _per_round(row, lambda ours, theirs: theirs / ours, cost)


def _multiple(row: str, cost: Cost) -> Measure:
    """How many times as much we cost as the better peer."""
    return _per_round(row, lambda ours, theirs: ours / theirs, cost)


def _against_floor(row: str) -> Measure:
    return lambda samples, _: of_rounds(
        [ours.server_us / floor.server_us for ours, floor in zip(samples[row][OURS], samples[row][FLOOR], strict=True)]
    )


def _scale(row: str, figure: str) -> Measure:
    return lambda _, scale: once(scale[row][figure])


def _cpu(sample: Sample) -> float:
    return sample.cpu_us


def _rate(sample: Sample) -> float:
    return 1 / sample.rate  # the better peer is the faster one


def _p50(sample: Sample) -> float:
    return sample.p50


def _p99(sample: Sample) -> float:
    return sample.p99


TIMES_LESS, TIMES_MORE, TIMES = "× less", "× more", "×"
BOUNDS = (
    Bound("CPU of a session, memory included", "session", 1.2, 3, True, TIMES_LESS, _times_less("session", _cpu)),
    Bound("CPU of a turn, 1 delta", "turn", 2.2, 4, True, TIMES_LESS, _times_less("turn", _cpu)),
    Bound("CPU of a turn, 20 at once", "burst", 2.8, 5, True, TIMES_LESS, _times_less("burst", _cpu)),
    Bound("CPU of a turn, 20 paced", "paced", 1.3, 2, True, TIMES_LESS, _times_less("paced", _cpu)),
    Bound("sessions a second", "session", 1.2, 2.8, True, TIMES_MORE, _times_less("session", _rate)),
    Bound("turns a second", "turn", 2, 3.3, True, TIMES_MORE, _times_less("turn", _rate)),
    Bound("p50 of a turn, 1 client", "latency-1", 1.5, 0.8, False, TIMES, _multiple("latency-1", _p50)),
    Bound("p50 of a turn, 8 clients", "latency-8", 1.5, 0.8, False, TIMES, _multiple("latency-8", _p50)),
    Bound("p99 of a turn, 64 clients", "turn", 4, 5, True, TIMES_LESS, _times_less("turn", _p99)),
    Bound("server CPU of a turn against the floor", "turn", 2, 1.3, False, TIMES, _against_floor("turn")),
    Bound("memory of an idle session", "idle", 22, 15, False, "KiB", _scale("idle", "kib_each")),
    Bound("SIGTERM: until all rows are closed", "shutdown", 0.3, 0.15, False, "s", _scale("shutdown", "rows_seconds")),
    Bound("SIGTERM: until the exit", "shutdown", 3, 1.2, False, "s", _scale("shutdown", "exit_seconds")),
    Bound("longest stall of the loop", "stall", 60, 20, False, "ms", _scale("stall", "longest_ms")),
    Bound(
        "turn in a long conversation against a short one", "length", 1.5, 1.1, False, TIMES, _scale("length", "ratio")
    ),
)


def judged(samples: Samples, scale: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bound whose row was measured, with its verdict: `goal`, `must` or `missed`."""
    results = []
    for bound in BOUNDS:
        if bound.row not in samples and bound.row not in scale:
            continue
        measured = bound.measure(samples, scale)
        results.append(
            {
                "title": bound.title,
                "row": bound.row,
                "unit": bound.unit,
                "more_is_better": bound.more,
                "must": bound.must,
                "goal": bound.goal,
                "measured": round(measured.value, 3),
                "range": [round(measured.low, 3), round(measured.high, 3)],
                "verdict": bound.verdict(measured),
            }
        )
    return results
