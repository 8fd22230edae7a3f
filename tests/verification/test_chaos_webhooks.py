"""Webhooks in `scripts/chaos`: a receiver that misbehaves as it is told, and an audit of what it got."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from .chaos import receiver as moods
from .chaos.audit_webhooks import ENDED, REMEMBERED, WebhookAudit
from .chaos.findings import FINDINGS, Findings
from .chaos.receipts import Receipt, ReceiverProcess, open_receiver
from .chaos.records import Clock, Deletion, Records, Row
from .promises import Promise

WAIT_SECONDS = 20.0
KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
CLOSED = "01234567-89ab-cdef-0123-456789abcdef"
OPEN = "11234567-89ab-cdef-0123-456789abcdef"
UNTOLD = "21234567-89ab-cdef-0123-456789abcdef"
HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}


# --- the receiver


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[ReceiverProcess]:
    with trio.fail_after(WAIT_SECONDS):
        async with open_receiver(tmp_path) as receiver:
            yield receiver


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        yield client


async def outcomes(client: httpx2.AsyncClient, url: str, count: int) -> list[int]:
    """What so many requests are answered, each on a connection of its own; 0: nothing."""
    found = []
    for _ in range(count):
        try:
            answer = await client.post(url, content=b"{}", headers={**HEADERS, "connection": "close"})
        except httpx2.TransportError:
            found.append(0)
        else:
            found.append(answer.status_code)
    return found


async def test_a_receiver_that_is_well_accepts_and_remembers_what_it_got(
    receiver: ReceiverProcess, client: httpx2.AsyncClient
) -> None:
    for number in range(3):  # on one connection
        answer = await client.post(receiver.url, content=str(number).encode(), headers=HEADERS)
        assert answer.status_code == 204
    await receiver.set(moods.WELL)
    assert [each.body for each in receiver.receipts] == [b"0", b"1", b"2"]
    assert all(each.accepted and HEADERS.items() <= each.headers.items() for each in receiver.receipts)


async def test_a_receiver_that_fails_or_cuts_accepts_some_and_says_what_it_answered(
    receiver: ReceiverProcess, client: httpx2.AsyncClient
) -> None:
    for mood, answers in ((moods.FAILS, {*moods.FAILURES, 204}), (moods.CUTS, {0, 204})):
        receiver.receipts.clear()
        await receiver.set(mood)
        found = await outcomes(client, receiver.url, 30)
        await receiver.set(moods.WELL)
        assert set(found) <= answers
        assert 0 < found.count(204) < len(found)
        assert sum(each.accepted for each in receiver.receipts) >= found.count(204)


async def test_a_receiver_that_is_down_refuses_and_is_back_on_its_port(
    receiver: ReceiverProcess, client: httpx2.AsyncClient
) -> None:
    for _ in range(3):
        await receiver.set(moods.DOWN)
        assert await outcomes(client, receiver.url, 1) == [0]
        await receiver.set(moods.WELL)
        assert await outcomes(client, receiver.url, 1) == [204]


# --- the audit


@dataclass
class World:
    """A session that is closed, remembered and reported, and one that is open."""

    records: Records = field(default_factory=Records)
    receipts: list[Receipt] = field(default_factory=list)

    def audit(self) -> dict[str, int]:
        findings = Findings()
        WebhookAudit(self.records, self.receipts, SECRET, Clock(1_000_000.0), findings).run()
        return {kind: count for kind, count in findings.broken.items() if count}

    def change(self, at: int, **said: Any) -> Receipt:
        """A receipt with other words, signed."""
        event = json.loads(self.receipts[at].body)
        event["data"] |= said
        return receipt(event["type"], event["data"], self.receipts[at].headers["webhook-id"])


def receipt(kind: str, data: dict[str, Any], message_id: str, *, status: int = 204) -> Receipt:
    body = json.dumps({"type": kind, "data": data}).encode()
    digest = hmac.digest(KEY, f"{message_id}.1000060.".encode() + body, hashlib.sha256)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": "1000060",
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    return Receipt(1_000_060.5, status, headers, body)


def public(session_id: str) -> str:
    return "sess_" + session_id.replace("-", "")


@pytest.fixture
def world() -> World:
    closed = Row(CLOSED, "ada", 10, False, 1_000_010.0, 1_000_020.0, 1_000_020.1, 10.0, "client_closed", "done")
    made = World()
    made.records.rows = {CLOSED: closed, OPEN: Row(OPEN, "eve", 10, True, 1_000_050.0)}
    about = {"session_id": public(CLOSED), "user": "ada", "started_at": 1_000_010.0, "ended_at": 1_000_020.0}
    ended = {**about, "row_closed_at": 1_000_020.1, "end_reason": "client_closed", "seconds": 10.0}
    made.receipts = [receipt(ENDED, ended, "msg_1", status=500), receipt(ENDED, ended, "msg_1")]
    made.receipts.append(receipt(REMEMBERED, about, "msg_2"))
    return made


def test_what_was_reported_once_or_again_is_in_order(world: World) -> None:
    assert world.audit() == {}


def test_what_a_person_deletes_after_its_end_is_reported_all_the_same(world: World) -> None:
    world.records.deletions[CLOSED] = Deletion(CLOSED, "ada", was_active=False, committed=1_000_030.0)
    del world.records.rows[CLOSED]
    assert world.audit() == {}
    world.receipts = world.receipts[2:]
    assert world.audit() == {"ends_unreported": 1}


def test_a_signature_of_a_database_whose_clock_was_set_is_in_order(world: World) -> None:
    ended = world.receipts[1]
    headers = {**ended.headers, "webhook-timestamp": str(1_000_060 + 3600)}
    digest = hmac.digest(KEY, f"msg_1.{1_000_060 + 3600}.".encode() + ended.body, hashlib.sha256)
    headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    world.receipts[1] = replace(ended, headers=headers)
    assert world.audit() == {}


def accepts_nothing_of_an_end(world: World) -> None:
    world.receipts[1] = replace(world.receipts[1], status=0)


def gets_no_end(world: World) -> None:
    del world.receipts[:2]


def gets_no_memory(world: World) -> None:
    del world.receipts[2]


def gets_another_body(world: World) -> None:
    world.receipts[0] = world.change(0, messages=7)


def gets_another_id(world: World) -> None:
    world.receipts[0] = receipt(ENDED, json.loads(world.receipts[0].body)["data"], "msg_0")


def gets_one_id_for_two_events(world: World) -> None:
    world.receipts[2] = receipt(REMEMBERED, json.loads(world.receipts[2].body)["data"], "msg_1")


def hears_of_an_open_session(world: World) -> None:
    world.receipts.append(
        receipt(ENDED, {**json.loads(world.receipts[0].body)["data"], "session_id": public(OPEN)}, "3")
    )


def hears_of_no_session(world: World) -> None:
    world.receipts.append(receipt(REMEMBERED, {"session_id": public(UNTOLD)}, "3"))


def hears_of_one_that_was_deleted_while_it_was_open(world: World) -> None:
    world.records.deletions[UNTOLD] = Deletion(UNTOLD, "ada", was_active=True, committed=1_000_030.0)
    world.receipts.append(receipt(ENDED, {"session_id": public(UNTOLD)}, "3"))


def hears_of_memory_that_waits(world: World) -> None:
    world.records.rows[CLOSED].memory_status = "pending"


def hears_of_another_end(world: World) -> None:
    world.receipts[:2] = [world.change(0, end_reason="shutdown"), world.change(1, end_reason="shutdown")]


def hears_of_another_time(world: World) -> None:
    world.receipts[2] = world.change(2, ended_at=1_000_019.0)


def gets_a_forgery(world: World) -> None:
    world.receipts[2] = replace(world.receipts[2], body=world.receipts[2].body + b" ")


def gets_an_old_signature(world: World) -> None:
    world.receipts[2] = replace(world.receipts[2], at=1_000_190.0)


FALSIFIED: list[tuple[str, Callable[[World], None]]] = [
    ("ends_unreported", accepts_nothing_of_an_end),
    ("ends_unreported", gets_no_end),
    ("memories_unreported", gets_no_memory),
    ("reports_differ", gets_another_body),
    ("reports_differ", gets_another_id),
    ("reports_differ", gets_one_id_for_two_events),
    ("reports_unfounded", hears_of_an_open_session),
    ("reports_unfounded", hears_of_no_session),
    ("reports_unfounded", hears_of_one_that_was_deleted_while_it_was_open),
    ("reports_unfounded", hears_of_memory_that_waits),
    ("reports_unfounded", hears_of_another_end),
    ("reports_unfounded", hears_of_another_time),
    ("bad_signatures", gets_a_forgery),
    ("bad_signatures", gets_an_old_signature),
]


@pytest.mark.parametrize(("kind", "falsify"), FALSIFIED, ids=[falsify.__name__ for _, falsify in FALSIFIED])
def test_a_broken_promise_is_reported_and_no_other(world: World, kind: str, falsify: Callable[[World], None]) -> None:
    falsify(world)
    assert world.audit().keys() == {kind}


def test_every_kind_of_finding_about_webhooks_is_produced() -> None:
    about = {kind for kind, promise in FINDINGS.items() if promise is Promise.REPORTED}
    assert {kind for kind, _ in FALSIFIED} == about
