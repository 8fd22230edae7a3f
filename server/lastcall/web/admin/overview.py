"""`/v1/admin/truth`, `/v1/admin/chart` and `/v1/admin/memory`: the whole at a glance."""

from __future__ import annotations

import trio
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from ...protocol.ids import parse_public_id, public_id
from ...store.operators import acts
from ...store.operators.census import ServerReport, TruthReport, read_truth
from ...store.operators.charts import read_chart
from ...store.operators.sessions import MemoryWork, memory_counts, page_of_memory_work
from ..access import actor_of, overseer_of, services_of
from ..answers import answer
from ..conversations import invalid_value, limit_of
from .bodies import Chart, Retried, ServerRow, Truth, Unmatched
from .parameters import body_of, cursor_of, unix, user_named
from .sessions import server_name, session_page

SECONDS_MIN, SECONDS_MAX, SECONDS = 600, 10 * 366 * 86_400, 86_400  # of a chart
STATUSES: tuple[MemoryWork, ...] = ("failed", "pending")


class _Retry(Struct, forbid_unknown_fields=True):
    session_id: str | None = None
    user: str | None = None


async def truth(request: Request) -> Response:
    """Whether active rows and sockets agree, over all servers; and the servers."""
    principal = await overseer_of(request)
    asked, store = trio.current_time(), services_of(request).store
    found = await read_truth(store)
    seconds = trio.current_time() - asked
    return answer(_truth(found, *await memory_counts(store), seconds, may_act=principal.scope.operates))


async def chart(request: Request) -> Response:
    """How many sessions began and ended in the last `seconds`, why, and how long they lasted."""
    await overseer_of(request)
    found = await read_chart(services_of(request).store, seconds_of(request))
    return answer(
        Chart(
            width_seconds=found.width_seconds,
            times=list(found.times),
            started=list(found.started),
            ended={name: list(counts) for name, counts in found.ended.items()},
            lasted={name: list(seconds) for name, seconds in found.lasted.items()},
            late={name: list(seconds) for name, seconds in found.late.items()},
        )
    )


async def memory_work(request: Request) -> Response:
    """A page of ended sessions whose memory has failed or is pending, newest first."""
    await overseer_of(request)
    limit, status = limit_of(request), request.query_params.get("status", "failed")
    wanted = next((each for each in STATUSES if each == status), None)
    if wanted is None:
        raise invalid_value(f"status must be {' or '.join(STATUSES)}.", "status")
    found = await page_of_memory_work(services_of(request).store, limit + 1, cursor_of(request), status=wanted)
    return answer(session_page(found, limit))


async def retry_memory(request: Request) -> Response:
    """Makes failed memory pending again: of one session, of a user, or of all."""
    actor, wanted = await actor_of(request), await body_of(request, _Retry)
    try:
        session_id = parse_public_id("sess", wanted.session_id) if wanted.session_id is not None else None
    except ValueError:
        raise invalid_value("session_id must be sess_ and 32 hex digits.", "session_id") from None
    user = user_named(wanted.user, "user") if wanted.user is not None else None
    count = await acts.retry_memories(services_of(request).store, actor, user=user, session_id=session_id)
    return answer(Retried(sessions=count))


def seconds_of(request: Request) -> float:
    """How far back a chart goes. Raises `RequestRefused`."""
    text = request.query_params.get("seconds", str(SECONDS))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and SECONDS_MIN <= int(text) <= SECONDS_MAX):
        raise invalid_value(f"seconds must be a number from {SECONDS_MIN} to {SECONDS_MAX}.", "seconds")
    return float(text)


def _truth(found: TruthReport, pending: int, failed: int, seconds: float, *, may_act: bool) -> Truth:
    return Truth(
        state=found.state,
        rows=found.rows,
        sockets=found.sockets,
        orphaned=found.orphaned,
        unmatched=[
            Unmatched(
                session_id=public_id("sess", each.session_id),
                lacks=each.lacks,
                server=server_name(each.hostname, each.pid),
            )
            for each in found.unmatched
        ],
        silent=list(found.silent),
        servers=[_server(each) for each in found.servers],
        memory_pending=pending,
        memory_failed=failed,
        database_ms=round(seconds * 1000, 2),
        may_act=may_act,
    )


def _server(each: ServerReport) -> ServerRow:
    ended = each.reaped_at or each.stopped_at
    return ServerRow(
        id=str(each.instance_id),
        name=f"{each.hostname}/{each.pid}",
        version=each.version,
        state="runs" if each.runs else "reaped" if each.reaped_at else "stopped",
        started_at=each.started_at.timestamp(),
        ended_at=unix(ended),
        lease_seconds=each.lease_seconds,
        heartbeat_age=each.heartbeat_age,
        counted_age=each.census_age,
        rows=each.row_count,
        sockets=each.sockets,
    )
