"""Whether a server could be taken for dead by another one: silent for long enough, in front of a steady observer."""

from __future__ import annotations

from itertools import pairwise

from lastcall.sessions.death import GAP_SECONDS
from lastcall.sessions.instance import RECONNECT_SECONDS

from ..server import Server
from ..world import World
from .causes import HEARTBEAT_SECONDS, LATENCY_SECONDS
from .findings import Span, overlap
from .step_checks import StepChecks, silence_seconds

JUDGED_SECONDS = 0.6  # from a reaper's look at a lease to the statement that closes the rows
BACK_SECONDS = RECONNECT_SECONDS + LATENCY_SECONDS  # from the end of a server's trouble to its next heartbeat


def looked_dead(owner: Server, at: float, world: World, checks: StepChecks) -> bool:
    """Whether a server gave no sign of life for long, while another one had its database all the time.

    An observer's look may be a little older than the sweep that follows from it; if trouble of its own begins in
    between, it is older by as much as that lasts.
    """
    for observer in world.servers:
        if observer is owner or (observer.over_at is not None and observer.over_at < at - JUDGED_SECONDS):
            continue
        looks = [at]
        if overlap(observer.trouble, at - JUDGED_SECONDS, at):
            looks += [when for when in observer.troubled_at if when <= at]
        seconds = silence_seconds(owner, observer)
        if any(
            was_silent(owner.trouble, look, seconds - HEARTBEAT_SECONDS)
            and (_had_its_database(observer, look, seconds) or _renewed(observer, look, seconds, checks))
            for look in looks
        ):
            return True
    return False


def was_silent(trouble: list[Span], at: float, seconds: float) -> bool:
    """Whether a server with such trouble gave no sign of life for so long. Between two troubles it may have had no
    time for any."""
    spans: list[Span] = []
    for begin, end in trouble:
        if spans and begin - spans[-1][1] <= BACK_SECONDS:
            spans[-1][1] = end
        else:
            spans.append([begin, end])
    return any(begin <= at and end >= at - JUDGED_SECONDS and min(end, at) - begin >= seconds
               for begin, end in spans)  # fmt: skip


def _renewed(observer: Server, at: float, seconds: float, checks: StepChecks) -> bool:
    """Whether it renewed its lease for so long: trouble that lets every other statement through leaves no gap."""
    since = at - seconds
    beats = [beat for beat in checks.beats.get(observer, ()) if since - GAP_SECONDS <= beat <= at]
    return bool(beats) and all(
        later - earlier <= GAP_SECONDS for earlier, later in pairwise([since, *beats, at]) if later > since
    )


def _had_its_database(observer: Server, at: float, seconds: float) -> bool:
    since = at - seconds + JUDGED_SECONDS
    return observer.started_at <= since and not any(
        min(end, at) - max(begin, since) > GAP_SECONDS for begin, end in observer.trouble
    )
