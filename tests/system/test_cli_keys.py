"""Keys by the command line, and where a server listens with and without them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from lastcall.auth.origins import is_loopback

from ..support.lastcall_command import Lastcall, process
from ..support.processes import run_server


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_key_is_printed_once_and_stored_as_a_hash(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    made = ask("keys", "create", "ada")
    key = made.out.strip()
    assert re.fullmatch(r"sk-[\w-]{43}", key)
    assert "shown only once" in made.err
    assert key not in made.err
    assert sql("SELECT subject, scope, prefix FROM api_keys") == [f"ada|user|{key[:9]}"]
    assert sql(f"SELECT secret_hash = sha256('{key}') FROM api_keys") == ["t"]
    dump = "\n".join(sql("SELECT k::text FROM api_keys k"))
    listed = ask("keys", "list")
    assert f"{key[:9]}…" in listed.out
    assert key[9:] not in dump + listed.out + ask("keys", "list", "--json").out


def test_a_key_is_created_listed_and_revoked_as_json(ask: Lastcall) -> None:
    made = json.loads(ask("keys", "create", "backend", "--scope", "service", "--json").out)
    assert (made["subject"], made["scope"]) == ("backend", "service")
    [listed] = json.loads(ask("keys", "list", "--json").out)
    assert (listed["key_id"], listed["revoked_at"], listed["active_sessions"]) == (made["key_id"], None, 0)
    revoked = json.loads(ask("keys", "revoke", made["key_id"], "--json").out)
    assert (revoked["id"], revoked["closed_sessions"]) == (made["key_id"], 0)
    again = json.loads(ask("keys", "revoke", made["key_id"], "--json").out)
    assert again["revoked_at"] == revoked["revoked_at"]


def test_revoking_an_unknown_key_is_a_mistake(ask: Lastcall) -> None:
    answer = ask("keys", "revoke", str(uuid4()))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "lastcall keys list" in answer.err


def test_an_empty_key_list_says_who_may_connect(ask: Lastcall) -> None:
    assert "any client that can reach the server" in ask("keys", "list").out


def test_a_link_is_printed_once_and_stored_as_a_hash(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    made = ask("keys", "link", "olaf", "--url", "https://chat.example/", "--within", "2h")
    found = re.fullmatch(r"https://chat\.example/#(ek_[\w-]{43})\n", made.out)
    assert found
    assert found[1] not in made.err
    assert sql("SELECT user_id, form, origin, key_id FROM client_secrets") == ["olaf|link|operator|"]
    assert sql("SELECT round(extract(epoch FROM expires_at - created_at)) FROM client_secrets") == ["7200"]
    assert sql(f"SELECT secret_hash = sha256('{found[1]}') FROM client_secrets") == ["t"]
    assert sql("SELECT action, target LIKE 'user:%' FROM audit_log") == ["link.create|t"]
    [link_id] = sql("SELECT secret_id FROM client_secrets")
    assert link_id in made.err
    assert ask("keys", "revoke", link_id).out == f"Revoked {link_id}; 0 active sessions closed.\n"
    listed = ask("keys", "list")
    assert "olaf" not in listed.out, "a link is no key, and the server is as open as before"


def test_a_user_is_signed_out_of_all_browsers(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    made = json.loads(ask("keys", "link", "ada", "--json").out)
    assert made["link"].startswith("http://127.0.0.1:8000/#ek_")
    assert (made["user"], made["seconds"]) == ("ada", 86_400)
    ask("keys", "link", "eve")
    answer = ask("keys", "sign-out", "ada")
    assert answer.out == "Signed ada out of 0 browsers; 1 link revoked, 0 active sessions closed.\n"
    assert json.loads(ask("keys", "sign-out", "ada", "--json").out) == {"browsers": 0, "links": 0, "closed_sessions": 0}
    assert sql("SELECT user_id FROM client_secrets WHERE revoked_at IS NULL") == ["eve"]
    assert sql("SELECT action FROM audit_log ORDER BY audit_id DESC LIMIT 1") == ["user.sign_out"]


@pytest.mark.parametrize(
    "arguments", [["ada", "--within", "0s"], ["ada", "--within", "soon"], ["ada", "--url", "x"], [" "]]
)
def test_a_link_that_cannot_work_is_a_mistake(ask: Lastcall, arguments: list[str]) -> None:
    answer = ask("keys", "link", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)


def test_a_key_can_be_created_before_the_first_start(lastcall: Lastcall, data_dir: Path) -> None:
    answer = lastcall("keys", "create", "ada", "--data-dir", str(data_dir))
    assert (answer.code, answer.out[:3]) == (0, "sk-")
    assert "ada" in lastcall("keys", "list", "--data-dir", str(data_dir)).out


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_only_loopback_is_served(durable_url: str, sql: Callable[[str], list[str]], host: str) -> None:
    arguments = ("serve", "--port", "0", "--agent", "echo", "--database-url", durable_url, "--host", host)
    answer = process(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "lastcall keys create" in answer.err


def test_with_a_key_or_a_token_secret_any_address_is_served(
    database_url: str, sql: Callable[[str], list[str]], ask: Lastcall, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    everywhere = ("--agent", "echo", "--database-url", database_url, "--host", "0.0.0.0")
    with run_server(*everywhere, "--jwt-secret-file", str(secret)) as server:
        assert server.url.startswith("http://0.0.0.0:")
    ask("keys", "create", "ada")
    with run_server(*everywhere) as server:
        assert server.url.startswith("http://0.0.0.0:")
