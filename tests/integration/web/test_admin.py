"""`/v1/admin/…`: what operators do has its effect, and its line in the audit log."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.protocol.ids import parse_public_id, public_id
from lastcall.store.operators.acts import Actor, close_session
from lastcall.store.postgres import PostgresStore
from lastcall.web.app import api_document

from tests.support.authorization import World, closed
from tests.support.openapi_check import check_body
from tests.support.operators import OPERATOR
from tests.support.servers import TestServer, open_server
from tests.support.waiting import eventually

OPERATOR_CLOSES = 4001
OPENAPI: dict[str, Any] = json.loads(api_document("openapi"))


@pytest.fixture
async def world(postgres_store: PostgresStore) -> AsyncIterator[World]:
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None})
        await world.key("service", "backend", Scope.SERVICE)
        await world.key("admin", "olga", Scope.ADMIN)
        await world.key("reader", "rita", Scope.READER)
        yield world


async def ask(world: World, method: str, path: str, who: str = "admin", **rest: Any) -> Any:
    """The body of a response that succeeded, which is as the API document says."""
    answer = await world.ask(method, f"/v1/admin/{path}", who, **rest)
    assert answer.status_code == 200, answer.text
    check_body(OPENAPI, method, f"/v1/admin/{path.partition('?')[0]}", answer.json())
    return answer.json()


async def audit(world: World) -> Sequence[dict[str, Any]]:
    """Lines of the audit log but those that made the world, oldest first."""
    lines = (await ask(world, "GET", "audit?limit=100"))["data"]
    return [each for each in reversed(lines) if each["actor"] != OPERATOR.name]


async def say(world: World, user: str, text: str, answers: int = 0) -> str:
    """A session of the user's in which something was said, and answered; it has ended. Returns its id."""
    async with world.socket("service", f"?user={user}") as ws:
        session = json.loads(await ws.get_message())["session"]["id"]
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await ws.send_message(json.dumps({"type": "conversation.item.create", "item": item}))
        while json.loads(await ws.get_message())["type"] != "conversation.item.done":
            pass
        for _ in range(answers):
            await ws.send_message(json.dumps({"type": "response.create"}))
            while json.loads(await ws.get_message())["type"] != "response.done":
                pass
    await eventually(
        lambda: world.store.select(
            "SELECT FROM conversation_sessions WHERE session_id = $1 AND memory_status = 'done'",
            parse_public_id("sess", session),
        ),
        bool,
    )
    return str(session)


async def test_closing_a_session_ends_its_socket_and_tells_its_user_by_whom(world: World) -> None:
    async with world.socket("service", "?user=ada") as ws:
        session = json.loads(await ws.get_message())["session"]["id"]
        answer = await ask(world, "POST", f"sessions/{session}/close", json={"reason": "  maintenance\n at noon"})
        assert answer["closed"]
        with trio.fail_after(5):
            assert await closed(ws) == OPERATOR_CLOSES
    told = (await world.ask("GET", f"/v1/sessions/{session}", "service", params={"user": "ada"})).json()
    assert told["closed_by"] == {"name": "olga", "reason": "maintenance at noon"}
    assert (told["end_reason"], told["ended_at"] is None) == ("by_hand", False)
    assert (await world.ask("GET", f"/v1/sessions/{session}", "service", params={"user": "eve"})).status_code == 404
    (line,) = await audit(world)
    assert (line["actor"], line["action"], line["via"]) == ("olga", "session.close", "api")
    assert line["target"] == str(parse_public_id("sess", session))
    shown = await ask(world, "GET", f"sessions/{session}")
    assert shown["closing"] == {"name": "olga", "reason": "maintenance at noon"}


async def test_a_session_that_had_ended_is_not_closed_again_and_nothing_is_noted(world: World) -> None:
    session = await say(world, "ada", "hello")
    assert not (await ask(world, "POST", f"sessions/{session}/close"))["closed"]
    assert await audit(world) == []


async def test_the_name_in_the_audit_log_is_that_of_the_key_whatever_user_is_named(world: World) -> None:
    await ask(world, "POST", "keys", json={"subject": "ada"}, headers={"OpenAI-Safety-Identifier": "somebody else"})
    await world.ask("POST", "/v1/admin/keys?user=mallory", "admin", json={"subject": "bob"})
    assert [(each["actor"], each["key_id"]) for each in await audit(world)] == [("olga", str(world.ids["admin"]))] * 2


async def test_an_act_that_fails_leaves_no_line(world: World) -> None:
    """The line is part of the act's own statement."""
    await world.store.select(
        "CREATE FUNCTION pg_temp_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
    )
    await world.store.select(
        "CREATE TRIGGER refuse BEFORE UPDATE ON conversation_sessions FOR EACH ROW EXECUTE FUNCTION pg_temp_refuse()"
    )
    try:
        session = uuid4()
        await world.store.select("INSERT INTO conversation_sessions (session_id, user_id) VALUES ($1, 'ada')", session)
        answer = await world.ask("POST", f"/v1/admin/sessions/{public_id('sess', session)}/close", "admin")
        assert answer.status_code == 500
        assert await audit(world) == []
    finally:
        await world.store.select("DROP FUNCTION pg_temp_refuse() CASCADE")
    await world.store.select("ALTER TABLE audit_log ADD CONSTRAINT full_up CHECK (action <> 'session.close') NOT VALID")
    try:
        await world.ask("POST", f"/v1/admin/sessions/{public_id('sess', session)}/close", "admin")
        rows = await world.store.select("SELECT is_active FROM conversation_sessions WHERE session_id = $1", session)
        assert rows[0]["is_active"], "without its line the act does not happen"
    finally:
        await world.store.select("ALTER TABLE audit_log DROP CONSTRAINT full_up")


async def test_a_session_is_shown_with_its_transcript_and_its_memories(world: World) -> None:
    session = await say(world, "ada", "My name is Ada.")
    shown = await ask(world, "GET", f"sessions/{session}")
    assert (shown["session"]["user"], shown["session"]["state"]) == ("ada", "ended")
    assert shown["session"]["memory_status"] == "done"
    assert [each["quote"] for each in shown["memories"]] == ["My name is Ada."]
    items = await ask(world, "GET", f"sessions/{session}/items?limit=1")
    assert [each["content"] for each in items["data"]] == ["My name is Ada."]
    assert items["next"] is None


async def test_a_memory_is_forgotten_for_good_and_the_audit_log_tells_by_whom(world: World) -> None:
    session = await say(world, "ada", "My name is Ada. I live in Berlin.")
    listed = (await ask(world, "GET", "memories?user_id=ada", "reader"))["data"]
    assert {each["content"] for each in listed} == {"My name is Ada.", "I live in Berlin."}
    home = next(each for each in listed if "Berlin" in each["content"])
    assert (home["quote"], home["source"]["session_id"]) == ("I live in Berlin.", session)
    path = f"/v1/admin/memories/{home['id']}"
    assert (await world.ask("DELETE", path, "reader")).status_code == 403
    assert (await ask(world, "DELETE", f"memories/{home['id']}"))["deleted"]
    assert (await world.ask("DELETE", path, "admin")).status_code == 404, "it is gone"
    left = (await ask(world, "GET", "memories?user_id=ada"))["data"]
    assert [each["content"] for each in left] == ["My name is Ada."]
    await say(world, "ada", "I live in Berlin.")
    assert len((await ask(world, "GET", "memories?user_id=ada"))["data"]) == 1, "it is not learned again"
    (line,) = await audit(world)
    assert (line["actor"], line["action"], line["via"]) == ("olga", "memory.forget", "api")
    assert line["details"] == {"memory": int(home["id"].removeprefix("mem_"))}
    assert [each["id"] for each in (await ask(world, "GET", "audit?user_id=ada"))["data"]] == [line["id"]]
    assert "Berlin" not in str(line)
    assert "ada" not in line["target"]


async def test_pages_hold_every_session_once_newest_first(world: World) -> None:
    await world.store.select(
        "INSERT INTO conversation_sessions (user_id, is_active, session_start, session_end) SELECT 'ada', false,"
        " date_trunc('hour', now()) - n / 3 * interval '0.3 ms', now() FROM generate_series(1, 50) n"
    )
    found: list[str] = []
    starts: list[float] = []
    for query in ("", "&user_id=ada", "&end_reason=by_hand"):
        found.clear()
        starts.clear()
        after = ""
        while True:
            page = await ask(world, "GET", f"sessions?limit=7{query}{after}")
            found += [each["id"] for each in page["data"]]
            starts += [each["started_at"] for each in page["data"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert len(found) == len(set(found)) == 50
        assert starts == sorted(starts, reverse=True)
    assert (await ask(world, "GET", "sessions?active=true"))["data"] == []


async def test_items_of_a_session_are_paged_without_a_gap(world: World) -> None:
    session = await say(world, "ada", "first")
    await world.store.select(
        "INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content,"
        " status) SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item' || n, 1000 + n / 2, 'user',"
        " n::text, 'completed' FROM conversation_sessions, generate_series(1, 25) n WHERE session_id = $1",
        parse_public_id("sess", session),
    )
    found: list[str] = []
    after = ""
    while True:
        page = await ask(world, "GET", f"sessions/{session}/items?limit=4{after}")
        found += [each["content"] for each in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(found) == sorted(["first", *map(str, range(1, 26))])


async def test_answers_of_a_session_are_paged_with_what_they_took(world: World) -> None:
    session = await say(world, "ada", "Hello", answers=3)
    first = await ask(world, "GET", f"sessions/{session}/responses?limit=2")
    second = await ask(world, "GET", f"sessions/{session}/responses?limit=2&after={first['next']}")
    found = first["data"] + second["data"]
    assert len({each["id"] for each in found}) == 3
    assert second["next"] is None
    assert {(each["outcome"], each["agent"], each["input_tokens"]) for each in found} == {("completed", "echo", None)}
    assert all(each["started_at"] <= each["first_at"] <= each["ended_at"] for each in found)


async def test_usage_is_by_the_key_that_opened_the_session_or_made_its_secret(world: World) -> None:
    await say(world, "ada", "Hello", answers=2)
    await world.secret("secret", user="bob")
    world.tokens["service"], service = world.tokens["secret"], world.tokens["service"]
    await say(world, "bob", "Hello", answers=1)
    world.tokens["service"] = service
    await world.store.select("DELETE FROM client_secrets")
    (by_key,) = (await ask(world, "GET", "usage?by=key"))["data"]
    assert (by_key["key_id"], by_key["subject"], by_key["answers"]) == (str(world.ids["service"]), "backend", 3)
    assert (by_key["user"], by_key["date"]) == (None, None)
    page = await ask(world, "GET", "usage?by=day,user&limit=1")
    rest = await ask(world, "GET", f"usage?by=day,user&limit=1&after={page['next']}")
    assert [(each["user"], each["answers"]) for each in page["data"] + rest["data"]] == [("ada", 2), ("bob", 1)]
    assert (await ask(world, "GET", "usage?since=2020-01-01&until=2020-01-31"))["data"] == []
    chart = await ask(world, "GET", "usage/chart?seconds=3600")
    assert sum(chart["outcomes"]["completed"]) == 3
    metrics = (await world.ask("GET", "/metrics", "admin")).text
    assert 'lastcall_tokens_total{type="input"} 0.0' in metrics, "this agent counts none"


async def test_failed_memory_is_retried_and_noted_without_a_users_name(world: World) -> None:
    session = await say(world, "olaf", "hello")
    await world.store.select(
        "UPDATE conversation_sessions SET memory_status = 'failed', memory_error = 'no', memory_finalized_at = NULL"
    )
    assert [each["id"] for each in (await ask(world, "GET", "memory"))["data"]] == [session]
    assert (await ask(world, "GET", "truth"))["memory_failed"] == 1
    assert (await ask(world, "POST", "memory/retry", json={"user": "eve"}))["sessions"] == 0
    assert (await ask(world, "POST", "memory/retry", json={"user": "olaf"}))["sessions"] == 1
    (line,) = await audit(world)
    assert (line["action"], line["details"]) == ("memory.retry", {"sessions": 1})
    assert "olaf" not in json.dumps(line)  # which no hash has among its digits


async def test_a_key_is_made_shown_once_and_revoked(world: World) -> None:
    made = await ask(world, "POST", "keys", json={"subject": "bob", "scope": "user"})
    world.tokens["bob"] = made["key"]
    assert (await world.ask("GET", "/v1/memories", "bob")).status_code == 200
    listed = await world.ask("GET", "/v1/admin/keys", "admin")
    assert made["key"] not in listed.text
    revoked = await world.ask("DELETE", f"/v1/admin/keys/{made['id']}", "admin")
    assert revoked.json()["closed_sessions"] == 0
    assert (await world.ask("GET", "/v1/memories", "bob")).status_code == 401
    await world.ask("DELETE", f"/v1/admin/keys/{made['id']}", "admin")
    assert [each["action"] for each in await audit(world)] == ["key.create", "key.revoke"]


async def test_a_user_is_exported_and_erased_and_the_log_keeps_no_name(world: World) -> None:
    await say(world, "ada-lovelace", "My name is Ada.", answers=1)
    (row,) = (await ask(world, "GET", "users?begins_with=ada"))["data"]
    assert (row["user"], row["sessions"], row["memories"]) == ("ada-lovelace", 1, 1)
    exported = (await world.ask("GET", "/v1/admin/users/export?user_id=ada-lovelace", "admin")).text
    kinds = [json.loads(line)["type"] for line in exported.splitlines()]
    assert {"memories", "sessions", "responses", "conversations", "messages"} == set(kinds)
    wrong = {"user": "ada-lovelace", "confirm": "ada"}
    assert (await world.ask("POST", "/v1/admin/users/erase", "admin", json=wrong)).status_code == 400
    right = {"user": "ada-lovelace", "confirm": "ada-lovelace"}
    assert (await ask(world, "POST", "users/erase", json=right))["messages"] == 2
    assert (await ask(world, "GET", "usage?by=user"))["data"] == []
    assert (await ask(world, "GET", "users"))["data"] == []
    assert "ada-lovelace" not in json.dumps(await audit(world))
    of_user = (await ask(world, "GET", "audit?user_id=ada-lovelace"))["data"]
    assert [each["action"] for each in of_user] == ["user.erase", "user.export"], "who knows the name finds it"


async def test_the_audit_log_is_exported_whole_and_runs_nothing_in_a_spreadsheet(world: World) -> None:
    mallory = Actor("=cmd()", "command")
    for _ in range(3):
        await key_admin.create_key(world.store, "x", Scope.USER, mallory)
    lines = list(csv.DictReader((await world.ask("GET", "/v1/admin/audit.csv", "reader")).text.splitlines()))
    assert [each["actor"] for each in lines[:3]] == ["'=cmd()"] * 3
    assert len(lines) == 6
    first = await ask(world, "GET", "audit?limit=4")
    second = await ask(world, "GET", f"audit?limit=4&before={first['next']}")
    assert [str(each["id"]) for each in (*first["data"], *second["data"])] == [each["id"] for each in lines]


async def test_what_the_audit_log_says_cannot_be_changed(world: World) -> None:
    with pytest.raises(Exception, match="cannot be changed"):
        await world.store.select("UPDATE audit_log SET actor = 'nobody'")


async def test_a_command_is_noted_with_the_login_of_who_ran_it(world: World) -> None:
    session = uuid4()
    await world.store.select("INSERT INTO conversation_sessions (session_id, user_id) VALUES ($1, 'ada')", session)
    await close_session(world.store, session, Actor("root", "command"), "too old")
    (line,) = await audit(world)
    assert (line["actor"], line["via"], line["details"]) == ("root", "command", {"reason": "too old"})


async def test_without_keys_this_machine_operates_and_says_so(server: TestServer) -> None:
    world = World(server, server.store, {"nobody": None})  # type: ignore[arg-type]
    session: UUID = uuid4()
    await world.store.select("INSERT INTO conversation_sessions (session_id, user_id) VALUES ($1, 'ada')", session)
    await ask(world, "POST", f"sessions/{public_id('sess', session)}/close", "nobody", headers={})
    lines = (await world.ask("GET", "/v1/admin/audit", "nobody")).json()["data"]
    assert [each["actor"] for each in lines] == ["this machine"]


@pytest.mark.parametrize(
    "path",
    ["sessions?limit=0", "sessions?after=x", f"sessions?after={'9' * 18}_{'a' * 32}", "sessions?end_reason=x",
     "usage?by=week", "usage?by=day,day", "usage?since=2026-02-30", "usage?since=2026-02-02&until=2026-02-01",
     "usage?until=9999-12-31", "usage?after=x", "usage/chart?seconds=1", "memory?status=done", "chart?seconds=1",
     "audit?before=x", "users?begins_with=", "users/export"],
)  # fmt: skip
async def test_a_parameter_that_is_not_valid_is_told(world: World, path: str) -> None:
    assert (await world.ask("GET", f"/v1/admin/{path}", "admin")).status_code == 400


async def test_webhooks_are_added_tested_listed_retried_and_removed(world: World) -> None:
    added = await ask(world, "POST", "webhooks", json={"url": "https://hooks.example/?token=x"})
    assert added["secret"].startswith("whsec_")
    (row,) = (await ask(world, "GET", "webhooks", "reader"))["data"]
    assert (row["id"], row["events"], row["pending"]) == (added["id"], ["session.ended", "memory.done"], 0)
    session = await say(world, "ada", "My name is Ada.")
    tested = await ask(world, "POST", f"webhooks/{added['id']}/test")
    page = await ask(world, "GET", "webhooks/deliveries?limit=1", "reader")
    assert [each["event_id"] for each in page["data"]] == [tested["event_id"]]
    rest = await ask(world, "GET", f"webhooks/deliveries?before={page['next']}&webhook_id={added['id']}&state=pending")
    assert [(each["event"], each["session_id"], each["user"]) for each in rest["data"]] == [
        ("memory.done", session, "ada"),
        ("session.ended", session, "ada"),
    ]
    await world.store.select("UPDATE webhook_deliveries SET state = 'failed', finished_at = now()")
    retry = "webhooks/deliveries/retry"
    assert (await ask(world, "POST", retry, json={"delivery_id": tested["delivery_id"]}))["deliveries"] == 1
    assert (await ask(world, "POST", retry, json={"webhook_id": added["id"]}))["deliveries"] == 2
    assert (await ask(world, "POST", retry))["deliveries"] == 0
    assert (await ask(world, "DELETE", f"webhooks/{added['id']}"))["id"] == added["id"]
    assert (await ask(world, "GET", "webhooks"))["data"] == []
    assert (await world.ask("DELETE", f"/v1/admin/webhooks/{added['id']}", "admin")).status_code == 404
    lines = await audit(world)
    assert [each["action"] for each in lines] == [
        "webhook.add",
        "webhook.test",
        "webhook.retry",
        "webhook.retry",
        "webhook.remove",
    ]
    assert lines[0]["details"] == {"host": "hooks.example", "events": "session.ended memory.done"}
    told = json.dumps(rest) + json.dumps(lines) + json.dumps(row)
    assert added["secret"] not in told


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("webhooks", {"url": "http://hooks.example/"}, "url"),
        ("webhooks", {"url": "https://hooks.example/", "events": []}, "events"),
        ("webhooks", {"url": "https://hooks.example/", "events": ["session.began"]}, "events"),
        ("webhooks", {"url": "https://hooks.example/", "name": "x"}, "name"),
        ("webhooks", {"url": 7}, None),
        ("webhooks/deliveries/retry", {"delivery_id": 2**63}, None),
        ("webhooks/deliveries/retry", {"delivery_id": 0}, None),
        ("webhooks/deliveries/retry", {"webhook_id": "x"}, "webhook_id"),
    ],
)
async def test_a_webhook_that_cannot_be_meant_is_refused_and_changes_nothing(
    world: World, path: str, body: dict[str, Any], param: str | None
) -> None:
    refused = await world.ask("POST", f"/v1/admin/{path}", "admin", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (await ask(world, "GET", "webhooks"))["data"] == []


@pytest.mark.parametrize("query", ["state=lost", "webhook_id=x", "before=x", "before=" + "9" * 19, "limit=0"])
async def test_a_question_about_deliveries_that_cannot_be_meant_is_refused(world: World, query: str) -> None:
    assert (await world.ask("GET", f"/v1/admin/webhooks/deliveries?{query}", "reader")).status_code == 400
