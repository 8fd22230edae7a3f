"""Numbers over time: sessions that began and ended, why, how long they lasted, how late their rows became true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..reports import Rows

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
BUCKETS = 400  # at most, but for very long times; a bucket is one of WIDTHS
WIDTHS_SECONDS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400)
BELOW_HOUR_SECONDS_MAX = 86_400.0  # for which buckets below an hour are read from rows


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


def width_for(seconds: float) -> int:
    """The width of the buckets for a chart of that many seconds."""
    wanted = seconds / BUCKETS
    widths = [each for each in WIDTHS_SECONDS if each >= 3600 or seconds <= BELOW_HOUR_SECONDS_MAX]
    return next((each for each in widths if each >= wanted), widths[-1])


async def read_chart(store: Rows, seconds: float) -> ChartReport:
    """Counts the sessions of the last `seconds`. Hours that are over were counted before, by `count_hours`."""
    width = width_for(seconds)
    counts: dict[str, dict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    for row in await store.fetch("session_chart", seconds, float(width)):
        counts[row["kind"]][row["bucket"]][row["label"]] += row["sessions"]
    times = sorted({bucket for kind in counts.values() for bucket in kind})
    reasons = sorted({label for labels in counts["reason"].values() for label in labels})
    return ChartReport(
        width_seconds=width,
        times=times,
        started=[counts["started"][time][""] for time in times],
        ended={reason: [counts["reason"][time][reason] for time in times] for reason in reasons},
        lasted=_quantiles([counts["lasted"][time] for time in times]),
        late=_quantiles([counts["late"][time] for time in times]),
    )


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
