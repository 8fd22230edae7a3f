"""Every framework holds the conversation that the official clients hold, as far as it lets its users say so.

What travels is read between the framework and the server, and every frame of the server is checked as strictly as
those of the official clients. What the agent is told of the conversation, it recites.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .. import frames, program
from ..agent import ENDLESS, RECITE
from ..conversing import told
from ..servers import Servers
from . import environment
from .relay import Relay, open_relay

pytestmark = pytest.mark.slow

PROGRAMS = {
    "livekit-agents": "livekit_agents",
    "pipecat": "pipecat_ai",
    "pydantic-ai": "pydantic_ai_realtime",
}


class Talk:
    """A framework that is connected through a relay. `received` and `sent` are the events of the last request."""

    def __init__(self, name: str, client: program.Client, relay: Relay, servers: Servers) -> None:
        self._client = client
        self._relay = relay
        self.key = servers.client_secret(name)
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []

    def do(self, verb: str, *arguments: object) -> Any:
        """Has the framework do something; returns its result. Raises `Failed`, and for any frame that is not right."""
        seen = len(self._relay.sent), len(self._relay.received)
        self._seen = seen[1]
        try:
            return self._client.do(verb, *arguments)
        finally:
            self.sent, self.received = self._relay.sent[seen[0] :], self._relay.received[seen[1] :]
            assert not self._relay.failures
            for frame in self.received:
                frames.check(frame)

    def say(self, text: str) -> str:
        """The answer to a text."""
        return "".join(self.do("turn", text))

    def recite(self) -> list[str]:
        """What the agent is told, a line a message, before it is asked to recite it."""
        return self.say(RECITE).splitlines()

    def until(self, kind: str) -> dict[str, Any]:
        """The first event of a type since the last request began: frameworks need not wait for it themselves."""
        event = self._relay.wait_for(kind, self._seen)
        frames.check(event)
        return event

    def got(self, kind: str) -> list[dict[str, Any]]:
        """Events of a type that the last request brought."""
        return [each for each in self.received if each["type"] == kind]

    def wrote(self, kind: str) -> list[dict[str, Any]]:
        """Events of a type that the framework sent for the last request."""
        return [each for each in self.sent if each["type"] == kind]


@pytest.fixture(scope="module")
def clients(frameworks_installed: None) -> Iterator[dict[str, program.Client]]:
    """All programs, started together: most of their time goes into imports."""
    with ExitStack() as stack:
        commands = {name: environment.program(module) for name, module in PROGRAMS.items()}
        yield {name: stack.enter_context(program.run_program(command)) for name, command in commands.items()}


@pytest.fixture
def connect(clients: dict[str, program.Client], servers: Servers) -> Iterator[Any]:
    """Connects a framework by its name."""
    with ExitStack() as stack:

        def connected(name: str) -> Talk:
            relay = stack.enter_context(open_relay(servers.urls["http"]))
            talk = Talk(name, clients[name], relay, servers)
            talk.do("open", relay.url, talk.key)
            stack.callback(talk.do, "close")
            return talk

        yield connected


@pytest.fixture(params=PROGRAMS)
def talk(request: pytest.FixtureRequest, connect: Any) -> Talk:
    connected: Talk = connect(request.param)
    return connected


def test_a_text_turn_is_streamed(talk: Talk) -> None:
    deltas = talk.do("turn", "Hello, who is there?")
    assert "".join(deltas) == "You said: Hello, who is there?"
    assert len(deltas) > 1
    assert talk.until("response.done")["response"]["status"] == "completed"


def only_late_cancels(talk: Talk) -> None:
    """No error, but for cancels after the first: LiveKit's client sends another, which may find the answer ended."""
    errors = talk.got("error")
    assert [each["error"]["code"] for each in errors] == ["response_cancel_not_active"] * len(errors)
    assert len(errors) < len(talk.wrote("response.cancel"))


def test_an_interrupted_answer_ends_and_the_next_one_comes(talk: Talk) -> None:
    talk.say("Hello.")
    talk.do("cancel", ENDLESS)
    assert talk.until("response.done")["response"]["status"] == "cancelled"
    only_late_cancels(talk)
    assert talk.say("Still there?") == "You said: Still there?"


def test_a_tool_is_called_and_its_output_answered(talk: Talk) -> None:
    turn = talk.do("tool", 'call get_weather {"city": "Oslo"}')
    assert turn["calls"] == [{"city": "Oslo"}]
    assert turn["text"] in told("sunny in Oslo")
    assert talk.say("Thank you.") == "You said: Thank you."


def test_an_error_is_told_and_the_conversation_goes_on(talk: Talk) -> None:
    talk.say("Hello.")
    shown = talk.do("error")
    error = talk.until("error")["error"]
    assert shown in (error["code"], error["message"])
    assert talk.say("Still there?") == "You said: Still there?"


@pytest.mark.parametrize("name", ["livekit-agents", "pydantic-ai"])
def test_a_framework_that_reconnects_tells_the_agent_all_again(name: str, connect: Any, servers: Servers) -> None:
    """In a new conversation: it has no place for the old one's id."""
    talk = connect(name)
    talk.say("before")
    servers.restart()
    talk.do("reconnected")
    assert talk.say("after") == "You said: after"
    assert talk.recite() == [
        "user: before",
        "assistant: You said: before",
        "user: after",
        "assistant: You said: after",
    ]


def test_livekit_edits_a_message_of_the_user(connect: Any) -> None:
    talk = connect("livekit-agents")
    talk.say("the long text")
    talk.do("edit", "the long text", "short")
    (deleted,), (created,) = talk.wrote("conversation.item.delete"), talk.wrote("conversation.item.create")
    assert created["item"]["id"] == deleted["item_id"]
    assert talk.recite() == ["user: short", "assistant: You said: the long text"]


def test_livekit_keeps_what_was_shown_of_an_interrupted_answer(connect: Any) -> None:
    talk = connect("livekit-agents")
    talk.do("cancel", ENDLESS)
    assert talk.until("response.done")["response"]["status"] == "cancelled"
    only_late_cancels(talk)
    assert talk.recite() == [f"user: {ENDLESS}", "assistant: Well … "]


def test_livekit_truncates_an_answer_under_its_id(connect: Any) -> None:
    talk = connect("livekit-agents")
    talk.say("Hello.")
    talk.do("truncate", "You said")
    (deleted,), (created,) = talk.wrote("conversation.item.delete"), talk.wrote("conversation.item.create")
    assert created["item"]["id"] == deleted["item_id"]
    assert talk.recite() == ["user: Hello.", "assistant: You said"]


def test_pipecat_clears_the_buffer_of_sound_at_an_interruption(connect: Any) -> None:
    """Which is empty, in text; an error would end the framework's service."""
    talk = connect("pipecat")
    talk.do("cancel", ENDLESS)
    assert talk.wrote("input_audio_buffer.clear")
    assert talk.until("input_audio_buffer.cleared")


def test_pipecat_retrieves_an_answer(connect: Any) -> None:
    talk = connect("pipecat")
    talk.say("Hello.")
    assert talk.do("retrieve") == "You said: Hello."


def test_pipecat_resets_into_a_new_conversation_with_its_context(connect: Any, servers: Servers) -> None:
    """As an application does after a restart of the server too: the framework does not reconnect by itself."""
    talk = connect("pipecat")
    talk.say("before")
    servers.restart()
    answer = "".join(talk.do("reset"))
    assert len(talk.got("session.created")) == 1
    assert '"content": "before"' in answer
    assert '"content": "You said: before"' in answer
    assert talk.say("after") == "You said: after"
