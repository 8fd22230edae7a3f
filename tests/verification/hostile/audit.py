"""Computes every figure of a run, and which promises were broken."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from statistics import median, quantiles
from typing import Any, NamedTuple

from ..promises import Promise
from .inputs import SECRET
from .run import HostileRun

TURN_P99_SECONDS_MAX = 1.0
RSS_GROWTH_MIB_MAX = 100.0  # of the attack's second half over its first: memory must not grow with the inputs
UNCONTAINED = ("socket_crashed", "connection_crashed", "session_crashed", "http_connection_failed", "response_failed")
TURN_SOURCES = ("runner", "server", "database")  # the healthy clients live in the runner
ATTACK_SOURCES = ("attackers", "server", "database")


class Check(NamedTuple):
    """One check. excused: it failed by no more than the time that the processes concerned lost to others."""

    name: str
    promise: Promise
    held: bool
    excused: bool = False


def figures(run: HostileRun, options: dict[str, Any]) -> dict[str, Any]:
    """Returns every figure of a run. findings, unjudged: the checks that failed, and those nobody can judge."""
    failed = [check for check in checks(run, options) if not check.held]
    findings = [check for check in failed if not check.excused]
    unjudged = [check.name for check in failed if check.excused]
    broken = Counter(dict.fromkeys((check.promise for check in checks(run, options)), 0))
    broken.update(check.promise for check in findings)
    return {
        "seed": options["seed"],
        **_attack(run),
        **_healthy(run, options),
        **_server(run),
        "lost_seconds": run.starvation.totals(),
        "broken": {str(promise): count for promise, count in broken.items()},
        "findings": [check.name for check in findings],
        "unjudged": unjudged,
        "ok": not failed,
        "too_busy": bool(unjudged) and not findings,
    }


def checks(run: HostileRun, options: dict[str, Any]) -> Iterator[Check]:
    """Yields every check of a run."""
    sent, inputs, turns = run.tally.sent.total(), options["inputs"], [turn.seconds for turn in run.tally.turns]
    restarted = run.pid != run.pid_after
    yield Check("every input was sent", Promise.BOUNDED, sent >= inputs, _sent_at_full_time(run) >= inputs)
    fast = _p99(turns) <= TURN_P99_SECONDS_MAX
    yield Check("healthy turns are fast", Promise.BOUNDED, fast, _p99(_running_seconds(run)) <= TURN_P99_SECONDS_MAX)
    yield Check("no healthy client was disconnected", Promise.CONTAINED, not run.tally.lost, _all_starved(run))
    yield Check("no restart", Promise.CONTAINED, not restarted and run.exit_code == 0)
    yield Check("no orphan", Promise.NO_ORPHAN, run.orphans == 0)
    yield Check("no bad peer is left", Promise.BOUNDED, run.active_after == options["clients"])
    yield Check("no secret in the log", Promise.SECRETS_KEPT, SECRET not in run.log)
    yield Check("flat memory", Promise.BOUNDED, _growth(run) <= RSS_GROWTH_MIB_MAX)
    yield Check("nothing crashed", Promise.CONTAINED, not _crashed(run))


# --- the time that was lost to other processes


def _sent_at_full_time(run: HostileRun) -> float:
    """Returns how many inputs would have been sent had the processes concerned never waited for a processor."""
    began, ended = run.attack_began, run.attack_began + run.attack_seconds
    running = run.attack_seconds - run.starvation.lost(began, ended, ATTACK_SOURCES)
    return run.tally.sent.total() * run.attack_seconds / running if running > 0.0 else float("inf")


def _running_seconds(run: HostileRun) -> list[float]:
    """Returns what each healthy turn took, without the time that was lost in it."""
    lost = run.starvation.lost
    return [turn.seconds - lost(turn.began, turn.began + turn.seconds, TURN_SOURCES) for turn in run.tally.turns]


def _all_starved(run: HostileRun) -> bool:
    """Whether every lost client waited in vain, and for no more than a fast turn without the time that was lost."""
    return all(
        end.timed_out
        and end.ended - end.began - run.starvation.lost(end.began, end.ended, TURN_SOURCES) <= TURN_P99_SECONDS_MAX
        for end in run.tally.lost
    )


# --- figures


def _attack(run: HostileRun) -> dict[str, Any]:
    return {
        "inputs": run.tally.sent.total(),
        "inputs_by_kind": dict(sorted(run.tally.sent.items())),
        "first_answers": dict(sorted(run.tally.answered.items())),
        "attack_seconds": round(run.attack_seconds, 1),
    }


def _healthy(run: HostileRun, options: dict[str, Any]) -> dict[str, Any]:
    turns = [turn.seconds for turn in run.tally.turns]
    return {
        "healthy_clients": options["clients"],
        "healthy_turns": len(turns),
        "turn_p50": round(median(turns), 3) if turns else None,
        "turn_p99": round(_p99(turns), 3) if turns else None,
        "turn_max": round(max(turns), 3) if turns else None,
        "healthy_lost": len(run.tally.lost),
        "lost": [end.reason for end in run.tally.lost[:5]],
    }


def _server(run: HostileRun) -> dict[str, Any]:
    refused = {
        name.partition('limit="')[2].rstrip('"}'): int(value)
        for name, value in run.metrics.items()
        if name.startswith("lastcall_limits_refused_total") and value
    }
    return {
        "restarted": run.pid != run.pid_after,
        "exit_code": run.exit_code,
        "orphans": run.orphans,
        "active_after": run.active_after,
        "rss_before_mib": round(run.rss_before, 1),
        "rss_max_mib": round(max(run.rss, default=0.0), 1),
        "rss_end_mib": round(run.rss[-1], 1) if run.rss else None,
        "rss_growth_mib": round(_growth(run), 1),
        "secrets_in_log": run.log.count(SECRET),
        "log_lines": run.log.count("\n"),
        "crashed": _crashed(run),
        "refused_by_limit": dict(sorted(refused.items())),
    }


def _p99(seconds: list[float]) -> float:
    """Returns the 99th percentile; infinity where there was no turn at all."""
    if len(seconds) < 2:
        return max(seconds, default=float("inf"))
    return quantiles(seconds, n=100, method="inclusive")[98]


def _growth(run: HostileRun) -> float:
    half = len(run.rss) // 2
    return max(run.rss[half:], default=0.0) - max(run.rss[:half], default=0.0) if half else 0.0


def _crashed(run: HostileRun) -> list[str]:
    return sorted({event for event in _events(run.log) if event in UNCONTAINED})


def _events(log: str) -> list[str]:
    """Returns the names of the logged events."""
    events = []
    for line in log.splitlines():
        try:
            events.append(str(json.loads(line).get("event")))
        except (ValueError, AttributeError):
            continue
    return events
