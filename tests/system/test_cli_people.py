"""What the commands do with what is stored of people."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest

from ..support.lastcall_command import Answer, Lastcall

LEARNED = """
    WITH talk AS (INSERT INTO conversations (user_id) VALUES ('{user}') RETURNING conversation_id, user_id),
    meeting AS (INSERT INTO conversation_sessions (conversation_id, user_id)
                SELECT conversation_id, user_id FROM talk RETURNING *),
    word AS (INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content,
                                   status)
             SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item_tea', 1, 'user',
                    'I like tea. {user}', 'completed'
               FROM meeting)
    INSERT INTO user_memories (user_id, kind, content, quote, source_session_id, source_item_id)
    SELECT user_id, 'like', 'I like tea.', 'I like tea.', session_id, 'item_tea' FROM meeting RETURNING memory_id
"""
KNOWN = "SELECT content FROM user_memories WHERE user_id = '{user}'"


@pytest.mark.parametrize("asked", ["jose\u0301", " josé "])
def test_a_user_is_asked_for_in_any_form_of_the_name(
    ask: Lastcall, sql: Callable[[str], list[str]], asked: str
) -> None:
    sql("INSERT INTO user_memories (user_id, kind, content) VALUES ('josé', 'fact', 'tea')")
    assert [each["content"] for each in json.loads(ask("memories", asked, "--json").out)["memories"]] == ["tea"]


def test_a_memory_is_corrected_without_secrets_and_of_its_own_user_only(
    ask: Lastcall, sql: Callable[[str], list[str]]
) -> None:
    (memory_id,) = sql(LEARNED.format(user="josé"))
    (other,) = sql(LEARNED.format(user="ben"))
    assert ask("memories", "edit", "ben", memory_id, "x") == Answer(2, "", f"lastcall: ben has no memory {memory_id}\n")
    answer = ask("memories", "edit", "jose\u0301", memory_id, " I like  coffee, my password is hunter2 ")
    says = "I like coffee, my password is [redacted]"
    assert answer == Answer(0, f"Memory {memory_id} says now: {says}\n", "")
    assert sql(KNOWN.format(user="josé")) == [says]
    edited = json.loads(ask("memories", "edit", "josé", memory_id, "I like cocoa.", "--json").out)
    assert edited == {"edited": int(memory_id), "content": "I like cocoa."}
    for content in (" ", "x" * 1001):
        assert "1 to 1000 characters" in ask("memories", "edit", "josé", memory_id, content).err
    assert sql(KNOWN.format(user="ben")) == ["I like tea."]
    assert sql(f"SELECT edited_at IS NULL FROM user_memories WHERE memory_id = {other}") == ["t"]


def test_a_memory_is_forgotten_by_its_own_user_only(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    (memory_id,) = sql(LEARNED.format(user="josé"))
    (other,) = sql(LEARNED.format(user="ben"))
    assert ask("memories", "forget", "ben", memory_id).err == f"lastcall: ben has no memory {memory_id}\n"
    assert ask("memories", "forget", "jose\u0301", memory_id) == Answer(0, f"Memory {memory_id} is forgotten.\n", "")
    assert sql(KNOWN.format(user="josé")) == []
    assert sql("SELECT count(*) FROM memory_tombstones WHERE user_id = 'josé'") == ["1"]
    assert ask("memories", "forget", "josé", memory_id).code == 2
    assert json.loads(ask("memories", "forget", "ben", other, "--json").out) == {"forgotten": int(other)}
    assert "ID" in ask("memories", "forget", "ben", "tea").err
    assert sql("SELECT via, details ->> 'memory' FROM audit_log WHERE action = 'memory.forget' ORDER BY audit_id") == [
        f"command|{memory_id}",
        f"command|{other}",
    ]


def test_a_user_is_exported_as_lines_of_json(ask: Lastcall, sql: Callable[[str], list[str]]) -> None:
    sql(LEARNED.format(user="josé"))
    sql(LEARNED.format(user="ben"))
    records = [json.loads(line) for line in ask("users", "export", "jose\u0301").out.splitlines()]
    assert [each["type"] for each in records] == ["memories", "sessions", "conversations", "messages"]
    memory, session, conversation, message = records
    assert (memory["content"], memory["quote"], memory["superseded_at"]) == ("I like tea.", "I like tea.", None)
    assert memory["source_session_id"] == session["session_id"] == message["session_id"]
    assert (message["role"], message["content"]) == ("user", "I like tea. josé")
    assert message["conversation_id"] == conversation["conversation_id"] == session["conversation_id"]
    assert ask("users", "export", "nobody") == Answer(2, "", "lastcall: nothing is stored of nobody\n")


def test_a_user_is_erased_once_that_is_confirmed(
    ask: Lastcall, sql: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(LEARNED.format(user="josé"))
    sql(LEARNED.format(user="ben"))
    for flags in ([], ["--json"]):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO("n\n"))
            answer = ask("users", "erase", "josé", *flags)
        assert (answer.code, answer.out) == (130, "")
        assert "Delete all conversations, memories and keys of josé?" in answer.err
    assert sql(KNOWN.format(user="josé")) == ["I like tea."]
    erased = "josé is erased: 1 sessions, 1 messages and 1 memories.\n"
    assert ask("users", "erase", "jose\u0301", "--yes") == Answer(0, erased, "")
    for table in ("conversations", "conversation_sessions", "user_memories"):
        assert sql(f"SELECT user_id FROM {table}") == ["ben"]
    counts = json.loads(ask("users", "erase", "ben", "--yes", "--json").out)
    assert counts == {"user_id": "ben", "sessions": 1, "messages": 1, "memories": 1}
    assert sql("SELECT FROM messages") == []
