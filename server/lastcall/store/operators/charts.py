"""Numbers over time: sessions that began and ended, why, how long they lasted, how late their rows became true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..reports import Rows

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
BUCKETS = 400  # at most, but for very long times; a bucket is one of WIDTHS
WIDTHS_SECONDS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400)
BELOW_HOUR_SECONDS_MAX = 86_400.0  # for which buckets below an hour are read from rows


Counts: TypeAlias = dict[str, dict[int, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class ChartReport:
    """Counts by bucket. times: Unix seconds at which the buckets that are not empty begin, in order.

    lasted, late: quantiles in seconds by name, to within a factor of 1.5; None where nothing ended.
    """

    width_seconds: int
    times: Sequence[int]
    started: Sequence[int]
    ended: Mapping[str, Sequence[int]]
    lasted: Mapping[str, Sequence[float | None]]
    late: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class AnswerChartReport:
    """What answers took, by bucket, as in `ChartReport`. tokens: input, output, and how many of the input were cached.

    first, took: until the first piece, and the end.
    """

    width_seconds: int
    times: Sequence[int]
    outcomes: Mapping[str, Sequence[int]]
    tokens: Mapping[str, Sequence[int]]
    first: Mapping[str, Sequence[float | None]]
    took: Mapping[str, Sequence[float | None]]


def width_for(seconds: float) -> int:
    """The width of the buckets for a chart of that many seconds."""
    wanted = seconds / BUCKETS
    widths = [each for each in WIDTHS_SECONDS if each >= 3600 or seconds <= BELOW_HOUR_SECONDS_MAX]
    return next((each for each in widths if each >= wanted), widths[-1])


async def read_chart(store: Rows, seconds: float) -> ChartReport:
    """Counts the sessions of the last `seconds`. Hours that are over were counted before, by `count_hours`."""
    width = width_for(seconds)
    rows = await store.fetch("session_chart", seconds, float(width))
    counts, times = _counts((row["kind"], row["bucket"], row["label"], row["sessions"]) for row in rows)
    reasons = sorted({label for labels in counts["reason"].values() for label in labels})
    return ChartReport(
        width_seconds=width,
        times=times,
        started=[counts["started"][time][""] for time in times],
        ended={reason: [counts["reason"][time][reason] for time in times] for reason in reasons},
        lasted=_quantiles([counts["lasted"][time] for time in times]),
        late=_quantiles([counts["late"][time] for time in times]),
    )


async def read_answer_chart(store: Rows, seconds: float) -> AnswerChartReport:
    """Sums up the answers of the last `seconds`, as `read_chart` does sessions."""
    width = width_for(seconds)
    rows = await store.fetch("response_chart", seconds, float(width))
    counts, times = _counts((row["kind"], row["bucket"], row["label"], row["amount"]) for row in rows)

    def of(kind: str) -> dict[str, list[int]]:
        labels = sorted({label for labels in counts[kind].values() for label in labels})
        return {label: [counts[kind][time][label] for time in times] for label in labels}

    return AnswerChartReport(
        width_seconds=width,
        times=times,
        outcomes=of("outcome"),
        tokens=of("tokens"),
        first=_quantiles([counts["first"][time] for time in times]),
        took=_quantiles([counts["took"][time] for time in times]),
    )


def _counts(rows: Iterable[tuple[str, int, str, int | None]]) -> tuple[Counts, list[int]]:
    """The counts by kind, bucket and label, and the buckets in order."""
    counts: Counts = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    for kind, bucket, label, amount in rows:
        counts[kind][bucket][label] += amount or 0
    return counts, sorted({bucket for kind in counts.values() for bucket in kind})


def _quantiles(buckets: Sequence[Mapping[str, int]]) -> dict[str, list[float | None]]:
    return {name: [_quantile(each, share) for each in buckets] for name, share in QUANTILES.items()}


def _quantile(counts: Mapping[str, int], share: float) -> float | None:
    """The upper bound of the duration that this share does not exceed."""
    wanted, reached = share * sum(counts.values()), 0
    for label, count in sorted((int(label), count) for label, count in counts.items()):
        reached += count
        if reached >= wanted:
            return round(float(2 ** (label / 2)), 4)
    return None
