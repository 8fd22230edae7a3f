"""The audit of a run: every figure, and whether each promise held."""

from __future__ import annotations

import json
from statistics import median, quantiles
from typing import Any

from .inputs import SECRET
from .run import Run

TURN_P99_SECONDS_MAX = 1.0
RSS_GROWTH_MIB_MAX = 100.0  # of the attack's second half over its first: what is held must not grow with the inputs
UNCONTAINED = ("socket_crashed", "connection_crashed", "session_crashed", "http_connection_failed", "response_failed")


def figures(run: Run, options: dict[str, Any]) -> dict[str, Any]:
    """Every figure of a run. `broken` names what did not hold."""
    turns, half = run.tally.turns, len(run.rss) // 2
    growth = max(run.rss[half:], default=0.0) - max(run.rss[:half], default=0.0) if half else 0.0
    refused = {
        name.partition('limit="')[2].rstrip('"}'): int(value)
        for name, value in run.metrics.items()
        if name.startswith("lastcall_limits_refused_total") and value
    }
    crashed = sorted({event for event in _events(run.log) if event in UNCONTAINED})
    result: dict[str, Any] = {
        "seed": options["seed"],
        "inputs": run.tally.sent.total(),
        "inputs_by_kind": dict(sorted(run.tally.sent.items())),
        "first_answers": dict(sorted(run.tally.answered.items())),
        "attack_seconds": round(run.attack_seconds, 1),
        "healthy_clients": options["clients"],
        "healthy_turns": len(turns),
        "turn_p50": round(median(turns), 3) if turns else None,
        "turn_p99": round(quantiles(turns, n=100, method="inclusive")[98], 3) if len(turns) > 1 else None,
        "turn_max": round(max(turns), 3) if turns else None,
        "healthy_lost": len(run.tally.lost),
        "lost": run.tally.lost[:5],
        "restarted": run.pid != run.pid_after,
        "exit_code": run.exit_code,
        "orphans": run.orphans,
        "active_after": run.active_after,
        "rss_before_mib": round(run.rss_before, 1),
        "rss_max_mib": round(max(run.rss, default=0.0), 1),
        "rss_end_mib": round(run.rss[-1], 1) if run.rss else None,
        "rss_growth_mib": round(growth, 1),
        "secrets_in_log": run.log.count(SECRET),
        "log_lines": run.log.count("\n"),
        "crashed": crashed,
        "refused_by_limit": dict(sorted(refused.items())),
    }
    result["broken"] = broken(result, options)
    result["ok"] = not result["broken"]
    return result


def broken(result: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """The promises that did not hold, by name."""
    p99 = result["turn_p99"]
    held = {
        "every input was sent": result["inputs"] >= options["inputs"],
        "healthy turns": p99 is not None and p99 <= TURN_P99_SECONDS_MAX,
        "no healthy client was disconnected": result["healthy_lost"] == 0,
        "no restart": not result["restarted"] and result["exit_code"] == 0,
        "no orphan": result["orphans"] == 0,
        "no bad peer is left": result["active_after"] == options["clients"],
        "no secret in the log": result["secrets_in_log"] == 0,
        "flat memory": result["rss_growth_mib"] <= RSS_GROWTH_MIB_MAX,
        "nothing crashed": not result["crashed"],
    }
    return [name for name, kept in held.items() if not kept]


def _events(log: str) -> list[str]:
    """The names of what was logged."""
    events = []
    for line in log.splitlines():
        try:
            events.append(str(json.loads(line).get("event")))
        except (ValueError, AttributeError):
            continue
    return events
