"""Every official client, unmodified, against `lastcall serve`: the same conversation with each of them.

A client is a program of its own or a page in a browser (here, and in `../node`), which does what a test asks for.
Whatever it receives is checked against the official client's own strict types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import node, page, program
from .agent import ENDLESS
from .conversing import told
from .program import Client, Failed
from .servers import Servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

# Where it runs, what it is, and the scheme that it speaks: the openai package for JavaScript insists on TLS.
CLIENTS = {
    "openai-python-sync": ("python", "openai_sync", "http"),
    "openai-python-async": ("python", "openai_async", "http"),
    "azure-python-sync": ("python", "azure_sync", "http"),
    "azure-python-async": ("python", "azure_async", "http"),
    "agents-python": ("python", "agents_python", "http"),
    "openai-node-ws": ("node", "openai-ws", "https"),
    "openai-node-websocket": ("node", "openai-websocket", "https"),
    "agents-node": ("node", "agents", "http"),
    "browser-websocket": ("browser", "websocket", "http"),
    "browser-openai": ("browser", "openai-websocket", "https"),
    "browser-agents": ("browser", "agents", "https"),
    "browser-ai-sdk": ("browser", "ai-sdk", "https"),
}

NAMELESS = {"browser-ai-sdk"}  # gives a cancellation no event_id


@pytest.fixture(scope="module")
def python_clients() -> Iterator[dict[str, Client]]:
    """Those in Python, started together: most of their time goes into imports."""
    with ExitStack() as stack:
        commands = {name: program.python(what) for name, (kind, what, _) in CLIENTS.items() if kind == "python"}
        yield {name: stack.enter_context(program.run_program(command)) for name, command in commands.items()}


@pytest.fixture(scope="module")
def node_clients(node_installed: None, folder: Path) -> Iterator[dict[str, Client]]:
    with ExitStack() as stack:
        env = {"NODE_EXTRA_CA_CERTS": str(folder / "ca.pem")}
        commands = {name: node.program(what) for name, (kind, what, _) in CLIENTS.items() if kind == "node"}
        yield {name: stack.enter_context(program.run_program(command, env)) for name, command in commands.items()}


@pytest.fixture(scope="module")
def browser_clients(node_installed: None, browser: Browser, pages: str) -> dict[str, Client]:
    names = {name: what for name, (kind, what, _) in CLIENTS.items() if kind == "browser"}
    return {name: page.open_page(browser, pages, what) for name, what in names.items()}


@pytest.fixture(scope="module")
def find_client(request: pytest.FixtureRequest, servers: Servers) -> Callable[[str], Client]:
    """A client by its name. All tests of the module share it; none is started before it is asked for."""

    def find(name: str) -> Client:
        clients: dict[str, Client] = request.getfixturevalue(f"{CLIENTS[name][0]}_clients")
        return clients[name]

    return find


class Talk:
    """A client, its name for the server, and its key: a backend's, or in a browser a client secret."""

    def __init__(self, name: str, client: Client, servers: Servers) -> None:
        self.name = name
        self.do = client.do
        self.frames = client.frames
        self.key = servers.client_secret(name) if CLIENTS[name][0] == "browser" else servers.key
        self.conversation = ""
        self._servers = servers

    @property
    def url(self) -> str:
        return self._servers.urls[CLIENTS[self.name][2]]

    def open(self, **query: str) -> str:
        """Connects, and returns the conversation's id."""
        self.conversation = self.do("open", self.url, self.key, {"user": self.name, **query})
        return self.conversation


@pytest.fixture(params=CLIENTS)
def talk(request: pytest.FixtureRequest, find_client: Callable[[str], Client], servers: Servers) -> Iterator[Talk]:
    """A client that is connected; it is closed afterwards."""
    talk = Talk(request.param, find_client(request.param), servers)
    talk.open()
    yield talk
    talk.do("close")


def test_a_text_turn_is_streamed(talk: Talk) -> None:
    turn = talk.do("turn", "Hello, who is there?")
    assert turn["status"] == "completed"
    assert "".join(turn["deltas"]) == "You said: Hello, who is there?"
    assert len(turn["deltas"]) > 1
    assert [frame["type"] for frame in talk.frames].count("response.done") >= 1


def test_a_cancelled_answer_ends_and_the_next_one_comes(talk: Talk) -> None:
    assert talk.do("cancel", ENDLESS) == "cancelled"
    assert "".join(talk.do("turn", "Still there?")["deltas"]) == "You said: Still there?"


def test_a_clients_tool_is_called_and_its_output_answered(talk: Talk) -> None:
    turn = talk.do("tool", 'What is it like? call get_weather {"city": "Oslo"}')
    assert turn["calls"] == [{"city": "Oslo"}]
    assert turn["text"] in told("sunny in Oslo")


def test_an_error_names_its_event_and_the_conversation_goes_on(talk: Talk) -> None:
    named = None if talk.name in NAMELESS else "mine"
    assert talk.do("error") == {"code": "response_cancel_not_active", "event_id": named}
    assert "".join(talk.do("turn", "Still there?")["deltas"]) == "You said: Still there?"


def test_a_wrong_key_opens_nothing_and_the_right_one_does(talk: Talk) -> None:
    talk.do("close")
    with pytest.raises(Failed, match="open: "):
        talk.do("open", talk.url, "ek_wrong", {"user": talk.name})
    talk.open()
    assert "".join(talk.do("turn", "Let me in.")["deltas"]) == "You said: Let me in."


def test_a_conversation_is_resumed_with_its_history(talk: Talk) -> None:
    conversation = talk.conversation
    talk.do("turn", "before")
    assert talk.do("cancel", ENDLESS) == "cancelled"
    talk.do("close")
    assert talk.open(conversation=conversation) == conversation
    told = [["user", "before"], ["assistant", "You said: before"], ["user", ENDLESS], ["assistant", "Well … "]]
    assert talk.do("history") == told
    talk.do("turn", "after")
    assert talk.do("history") == [*told, ["user", "after"], ["assistant", "You said: after"]]


def test_two_tabs_of_one_conversation_are_told_of_each_others_items(
    find_client: Callable[[str], Client], servers: Servers
) -> None:
    """The openai package's two clients for Node."""
    one, other = find_client("openai-node-ws"), find_client("openai-node-websocket")
    url, user = servers.urls["https"], {"user": "two-tabs"}
    conversation = one.do("open", url, servers.key, user)
    assert other.do("open", url, servers.key, {**user, "conversation": conversation}) == conversation
    assert other.do("history") == []  # its first event: from now on it is told of items
    for speaker, listener, text in ((one, other, "said in one"), (other, one, "said in the other")):
        assert speaker.do("turn", text)["status"] == "completed"
        answer = f"You said: {text}"
        assert listener.do("heard", [text, answer]) == [["user", text], ["assistant", answer]]
    assert one.do("history") == other.do("history")
    for each in (one, other):
        each.do("close")


@pytest.fixture(scope="module")
def restarted(find_client: Callable[[str], Client], servers: Servers) -> dict[str, Any]:
    """What became of every client whose server was stopped with SIGTERM and replaced by another."""
    talks = [Talk(name, find_client(name), servers) for name in CLIENTS]
    for talk in talks:
        talk.open()
        talk.do("turn", "before")
    servers.restart()
    outcomes: dict[str, Any] = {}
    for talk in talks:
        try:
            assert talk.do("resumed", talk.url) == talk.conversation
            outcomes[talk.name] = [talk.do("history"), talk.do("turn", "after")]
            talk.do("close")
        except (AssertionError, Failed) as error:
            outcomes[talk.name] = error
    return outcomes


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_goes_on_after_a_restart_of_the_server(name: str, restarted: dict[str, Any]) -> None:
    outcome = restarted[name]
    if isinstance(outcome, Exception):
        raise outcome
    history, turn = outcome
    assert history == [["user", "before"], ["assistant", "You said: before"]]
    assert "".join(turn["deltas"]) == "You said: after"
