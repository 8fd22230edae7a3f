"""Webhooks by the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from lastcall.cli import webhooks

from ..support.lastcall_command import Lastcall
from ..support.processes import run_server
from ..support.webhook_receiver import answer, open_receiver

URL = "https://hooks.example/lastcall?tenant=7"
FAILED = (
    "UPDATE webhook_deliveries"
    " SET state = 'failed', finished_at = now(), attempts = 12, status = 500, error = 'HTTP 500'"
)


def add(ask: Lastcall, url: str = URL, *more: str) -> dict[str, str]:
    added: dict[str, str] = json.loads(ask("webhooks", "add", url, *more, "--json").out)
    return added


def test_a_secret_is_printed_once_and_the_list_does_not_have_it(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    added = ask("webhooks", "add", URL)
    secret = added.out.strip()
    assert re.fullmatch(r"whsec_[\w+/]{43}=", secret)
    assert "shown only once" in added.err
    assert secret not in added.err
    listed = ask("webhooks", "list")
    assert (URL in listed.out, "session.ended memory.done" in listed.out) == (True, True)
    assert secret not in listed.out + ask("webhooks", "list", "--json").out
    assert sql("SELECT encode(secret, 'base64') FROM webhook_endpoints") == [secret.removeprefix("whsec_")]
    (line,) = sql("SELECT action || ' ' || details::text FROM audit_log")
    assert "webhook.add" in line
    assert "hooks.example" in line
    assert "tenant" not in line


def test_only_the_events_that_are_named_are_sent(ask: Lastcall) -> None:
    add(ask, URL, "--events", "memory.done")
    assert [each["events"] for each in json.loads(ask("webhooks", "list", "--json").out)] == [["memory.done"]]
    assert ask("webhooks", "add", URL, "--events", "session.began").code == 2


@pytest.mark.parametrize("url", ["hooks.example", "http://hooks.example/", "https://ada:pw@hooks.example/"])
def test_a_url_that_cannot_be_meant_is_refused_in_one_line_and_nothing_is_stored(ask: Lastcall, url: str) -> None:
    refused = ask("webhooks", "add", url)
    assert (refused.code, refused.err.count("\n"), refused.out) == (2, 1, "")
    assert ask("webhooks", "list").out == "No webhooks.\n"


def test_http_to_another_machine_is_taken_where_that_is_said(ask: Lastcall) -> None:
    assert "--allow-http" in ask("webhooks", "add", "http://hooks.example/").err
    assert add(ask, "http://hooks.example/", "--allow-http")["url"] == "http://hooks.example/"


def test_an_endpoint_is_removed_with_what_waits_for_it(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    added = add(ask)
    sql("INSERT INTO conversation_sessions (user_id) VALUES ('ada')")
    sql("UPDATE conversation_sessions SET is_active = false")
    assert "session.ended" in ask("webhooks", "deliveries").out
    assert ask("webhooks", "remove", added["endpoint_id"]).out == f"Removed {added['endpoint_id']}.\n"
    assert ask("webhooks", "list").out == "No webhooks.\n"
    assert ask("webhooks", "deliveries").out == "No deliveries.\n"
    again = ask("webhooks", "remove", added["endpoint_id"])
    assert (again.code, "lastcall webhooks list" in again.err) == (2, True)


@pytest.mark.parametrize("command", ["remove", "test"])
def test_an_unknown_endpoint_is_a_mistake(ask: Lastcall, command: str) -> None:
    refused = ask("webhooks", command, str(uuid4()))
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_failed_deliveries_are_listed_with_their_error_and_retried(
    ask: Lastcall, sql: Callable[[str], list[str]]
) -> None:
    add(ask)
    sql("INSERT INTO conversation_sessions (user_id) VALUES ('ada'), ('eve')")
    sql("UPDATE conversation_sessions SET is_active = false")
    sql(FAILED)
    failed = json.loads(ask("webhooks", "deliveries", "--state", "failed", "--json").out)
    assert [(each["attempts"], each["status"], each["error"]) for each in failed] == [(12, 500, "HTTP 500")] * 2
    assert "HTTP 500" in ask("webhooks", "deliveries").out
    assert ask("webhooks", "retry", str(failed[0]["delivery_id"])).out == "1 delivery will be sent again.\n"
    assert ask("webhooks", "retry", "--endpoint", str(uuid4())).out == "0 deliveries will be sent again.\n"
    assert json.loads(ask("webhooks", "retry", "--json").out) == {"retried": 1}
    assert len(json.loads(ask("webhooks", "deliveries", "--state", "pending", "--json").out)) == 2


@pytest.mark.slow
def test_a_test_says_what_came_of_it(ask: Lastcall, database_url: str, sql: Callable[[str], list[str]]) -> None:
    with open_receiver() as receiver:
        with run_server("--database-url", database_url, "--agent", "echo"):
            added = add(ask, receiver.url)
            tested = ask("webhooks", "test", added["endpoint_id"])
            assert (tested.code, tested.out) == (0, "Delivered: HTTP 204.\n")
            receiver.behave = answer(500)
            tested = ask("webhooks", "test", added["endpoint_id"])
            assert (tested.code, tested.out) == (1, "Not delivered: HTTP 500. It will be tried again.\n")
        first, _ = receiver.received
        first.verify(added["secret"])
        assert first.event["type"] == "webhook.test"


def test_a_test_without_a_server_says_so(ask: Lastcall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TEST_SECONDS", 0.05)
    tested = ask("webhooks", "test", add(ask)["endpoint_id"])
    assert (tested.code, "No server has sent it" in tested.out) == (1, True)
