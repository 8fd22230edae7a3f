"""What the answers took: those of a session, sums by day, user and key, and numbers over time."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from starlette.requests import Request
from starlette.responses import Response

from ...protocol.ids import public_id
from ...store.operators.charts import read_answer_chart
from ...store.operators.sessions import find_details
from ...store.operators.usage import GROUPS, ResponseReport, UsageGroup, UsageSum, read_usage, responses_of
from ..access import overseer_of, services_of
from ..answers import answer
from ..conversations import invalid_value, limit_of
from .overview import seconds_of
from .parameters import cursor_of, cursor_text, no_session, page_of, session_id_of, text_of, unix
from .session_bodies import AnswerChart, ResponsePage, ResponseRow, UsagePage, UsageRow

DAYS = 7  # of the sums, where no time is given


async def list_responses(request: Request) -> Response:
    """A page of what the answers in a session took, oldest first."""
    await overseer_of(request)
    store, session_id, limit = services_of(request).store, session_id_of(request), limit_of(request)
    found = await responses_of(store, session_id, limit + 1, cursor_of(request))
    if not found and await find_details(store, session_id) is None:
        raise no_session()
    page, last = page_of(found, limit)
    behind = None if last is None else cursor_text(last.started_at, last.response_id)
    return answer(ResponsePage(data=[_response(each) for each in page], next=behind))


async def usage(request: Request) -> Response:
    """What the answers took that ended on the days from `since` to `until`, in UTC, summed up by day, user or key."""
    await overseer_of(request)
    limit, skip, by = limit_of(request), _skip(request), _groups(request)
    last = _day(request, "until") or datetime.now(UTC).date()
    try:
        first = _day(request, "since") or last - timedelta(days=DAYS - 1)
        since, until = (datetime.combine(each, time(), UTC) for each in (first, last + timedelta(days=1)))
    except OverflowError:
        raise invalid_value("until is too far back, or ahead.", "until") from None
    if first > last:
        raise invalid_value("since must not be later than until.", "since")
    found = await read_usage(services_of(request).store, since, until, by, limit + 1, skip=skip)
    behind = skip + limit if len(found) > limit else None
    return answer(UsagePage(data=[_sum(each) for each in found[:limit]], next=behind))


async def usage_chart(request: Request) -> Response:
    """How many answers ended in the last `seconds`, how, and what they took."""
    await overseer_of(request)
    found = await read_answer_chart(services_of(request).store, seconds_of(request))
    return answer(
        AnswerChart(
            width_seconds=found.width_seconds,
            times=list(found.times),
            outcomes={name: list(counts) for name, counts in found.outcomes.items()},
            tokens={name: list(counts) for name, counts in found.tokens.items()},
            first={name: list(seconds) for name, seconds in found.first.items()},
            took={name: list(seconds) for name, seconds in found.took.items()},
        )
    )


def _groups(request: Request) -> list[UsageGroup]:
    asked = request.query_params.get("by", "day").split(",")
    found = [each for each in GROUPS if each in asked]
    if len(found) != len(asked):
        raise invalid_value(f"by must be some of {', '.join(GROUPS)}, with commas between them.", "by")
    return found


def _skip(request: Request) -> int:
    text = request.query_params.get("after", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise invalid_value("after must be the `next` of a page.", "after")
    return int(text)


def _day(request: Request, name: str) -> date | None:
    text = text_of(request, name)
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise invalid_value(f"{name} must be a day like 2026-01-31.", name) from None


def _response(each: ResponseReport) -> ResponseRow:
    return ResponseRow(
        id=public_id("resp", each.response_id),
        started_at=each.started_at.timestamp(),
        first_at=unix(each.first_at),
        ended_at=each.ended_at.timestamp(),
        outcome=each.outcome,  # type: ignore[arg-type]  # the schema allows no other
        reason=each.reason,
        agent=each.agent,
        model=each.model,
        input_tokens=each.input_tokens,
        output_tokens=each.output_tokens,
        cached_tokens=each.cached_tokens,
    )


def _sum(each: UsageSum) -> UsageRow:
    return UsageRow(
        date=None if each.date is None else each.date.isoformat(),
        user=each.user_id,
        key_id=None if each.key_id is None else str(each.key_id),
        key=each.key_prefix,
        subject=each.key_subject,
        sessions=each.sessions,
        answers=each.answers,
        failed=each.failed,
        input_tokens=each.input_tokens,
        output_tokens=each.output_tokens,
        cached_tokens=each.cached_tokens,
        counted=each.counted,
        first_seconds=each.first_seconds,
        answer_seconds=each.answer_seconds,
    )
