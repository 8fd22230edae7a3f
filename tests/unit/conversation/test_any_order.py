"""Any order of events: a small model predicts each answer, and the store has everything acknowledged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from copy import copy
from dataclasses import dataclass, field

import trio
from hypothesis import event as note
from hypothesis import example, given
from hypothesis import strategies as st
from lastcall.agents.agent import AgentFailed, Turn
from lastcall.conversation.responses.responder import OUT_OF_BAND_MAX
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from tests.support.fake_rows import SessionRecord
from tests.support.raw_wire import STRICT, Client, Event, World, connect, in_a_world
from tests.support.scripted_agents import ScriptedAgent

from ...support.examples import examples

PIECE_SECONDS = 1.0
PIECES = ("Well, ", "let ", "me ", "see.")
PROMPT_FAIL = "Fail."


class Measured(ScriptedAgent):
    """Echoes the bystander at once; answers others with a piece a second, or fails in mid-answer when told to."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        if turn.user_id == "bystander":
            yield f"You said: {turn.messages[-1].text}"
            return
        for number, piece in enumerate(PIECES):
            yield piece
            await trio.sleep(PIECE_SECONDS)
            if number == 1 and turn.instructions.startswith(PROMPT_FAIL):
                raise AgentFailed("agent_error", "as it was told")


# --- the client's events --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """An event to send, or seconds to wait.

    item, previous: a known item, counted from the last one. gone: the same of a deleted one, instead of `item`.
    """

    event: Event | str = ""
    seconds: float = 0.0
    item: int | None = None
    gone: int | None = None
    previous: int | None = None
    response: bool = False


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
patches = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("realtime"),
        "instructions": st.none() | text | st.just(PROMPT_FAIL),
        "tools": st.none() | st.just([{"type": "function", "name": "f"}]),
        "tool_choice": st.sampled_from([None, "auto", "none", "required"]),
        "max_output_tokens": st.sampled_from([None, "inf", 7]),
        "tracing": st.sampled_from([None, "auto"]),
        "truncation": st.sampled_from([None, "auto", "disabled"]),
        "audio": st.just({"input": {"turn_detection": {"type": "semantic_vad"}}}),
    },
)
ids = st.sampled_from(["a", "b", "c", "", "x" * 128, "x" * 129, "é" * 128, "nul\0"])
updates = st.builds(lambda patch: Step({"type": "session.update", "session": patch}), patches)


@st.composite
def creations(draw: st.DrawFn) -> Step:
    role, kind = draw(
        st.sampled_from(
            [
                *[("user", "input_text")] * 4,
                ("system", "input_text"),
                ("assistant", "output_text"),
                ("user", "output_text"),
                ("assistant", "input_text"),
            ]
        )
    )
    content = [{"type": kind, "text": said} for said in draw(st.lists(text, max_size=2))]
    item: Event = {"type": "message", "role": role, "content": content}
    event: Event = {"type": "conversation.item.create", "item": item}
    if draw(st.booleans()):
        item["id"] = draw(ids)
    previous = draw(st.sampled_from([None, None, 0, 0, 1]))
    if previous is None and draw(st.booleans()):
        event["previous_item_id"] = draw(st.sampled_from([None, "root", "nowhere"]))
    item_of = st.sampled_from([None, None, None, 0, 1])
    return Step(event, previous=previous, item=draw(item_of), gone=draw(item_of))


function_items = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "name": st.sampled_from(["f", "", "nul\0"]), "arguments": text},
        optional={"call_id": st.sampled_from([None, "call_1", "x" * 129]), "id": ids},
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": st.sampled_from(["call_1", ""]), "output": text},
        optional={"id": ids},
    ),
).map(lambda item: Step({"type": "conversation.item.create", "item": item}))
touches = st.builds(
    lambda verb, item, gone, other: Step({"type": f"conversation.item.{verb}", "item_id": other}, item=item, gone=gone),
    st.sampled_from(["retrieve", "delete", "delete"]),
    st.sampled_from([None, 0, 0, 1, 2]),
    st.sampled_from([None, None, None, None, 0]),
    ids,
)
parameters: st.SearchStrategy[Event | None] = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "instructions": st.sampled_from([None, "Sing.", PROMPT_FAIL]),
            "conversation": st.sampled_from([None, "auto", "auto", "none", "none", "other"]),
            "input": st.sampled_from([None, None, [], [{"type": "item_reference", "id": "nowhere"}]]),
            "tools": st.sampled_from([None, [{"type": "function", "name": "g"}], [{"type": "function"}]]),
            "tool_choice": st.sampled_from([None, "none", "sometimes", {"type": "function", "name": "other"}]),
            "prompt": st.sampled_from([None, None, {"id": "pmpt_1"}]),
            "metadata": st.sampled_from(
                [None, {"k": "v"}, {"k": "v" * 513}, {"k" * 65: ""}, {str(n): "" for n in range(17)}]
            ),
            "max_output_tokens": st.sampled_from([None, 5, "inf"]),
        },
    ),
)
answers = st.builds(lambda wanted: Step({"type": "response.create", "response": wanted}), parameters) | st.just(
    Step({"type": "response.create"})
)
cancels = st.one_of(
    st.just(Step({"type": "response.cancel"})),
    st.just(Step({"type": "response.cancel"}, response=True)),
    st.just(Step({"type": "response.cancel", "response_id": "resp_other"})),
)
UNFIT_SESSIONS: list[Event] = [{"max_output_tokens": 0}, {"voice": "ash"}, {"prompt": {"id": "pmpt_1"}}]
REFUSED: list[Event] = [
    {"type": "foo.bar"},
    {"type": "conversation.item.delete"},
    {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 1},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    *({"type": "session.update", "session": unfit} for unfit in UNFIT_SESSIONS),
    {"type": 7},
    {},
    {"type": "session.update"},
    {"type": "session.update", "session": {"type": "transcription"}},
    {"type": "conversation.item.create", "item": {"type": "mcp_call"}},
    {"type": "conversation.item.create", "item": {"type": "item_reference", "id": "a"}},
    {"type": "conversation.item.create", "item": {"role": "user", "content": "Hello"}},
    {"type": "response.create", "response": 5},
    {"type": "response.cancel", "response_id": 5},
]
refused = st.sampled_from(REFUSED).map(Step)
broken = st.sampled_from(["", "{", "nonsense", "[1]", '"response.create"', "[" * 5_000]).map(Step)
waits = st.sampled_from([0.5, 1.0, 2.5, 5.0]).map(lambda seconds: Step(seconds=seconds))
steps = st.lists(
    st.one_of(
        updates, creations(), creations(), function_items, touches, answers, answers, cancels, refused, broken, waits
    ),
    max_size=14,
)


# --- the expected answers -------------------------------------------------------------------------------------------

SHAPE_CODES = {
    "invalid_value",
    "invalid_json",
    "missing_required_parameter",
    "unknown_parameter",
    "unsupported_event",
    "input_audio_buffer_commit_empty",
    "item_truncate_invalid_item_id",
    "unsupported_content_type",
}
OPENING = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
DELTA = "response.output_text.delta"
CLOSING = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


@dataclass
class Reply:
    """A response as the client has received it. text: the deltas so far."""

    events: list[Event]
    status: str = "completed"
    text: str = ""
    deleted: bool = False  # its item, while it was in progress

    @property
    def response_id(self) -> str:
        return str(self.events[0]["response"]["id"])

    @property
    def done(self) -> bool:
        return bool(self.events[-1]["type"] == "response.done")

    @property
    def out_of_band(self) -> bool:
        return self.events[0]["response"]["conversation_id"] is None

    @property
    def item_ids(self) -> list[str]:
        return [event["item"]["id"] for event in self.events if event["type"] == "response.output_item.added"]

    def check(self) -> None:
        """Checks the canonical order, the whole text, and the final status."""
        kinds = [event["type"] for event in self.events]
        deltas = [event["delta"] for event in self.events if event["type"] == DELTA]
        self.text = "".join(deltas)
        opening = [kind for kind in OPENING if not (self.out_of_band and kind == "conversation.item.added")]
        whole = [
            kind for kind in CLOSING if not ((self.out_of_band or self.deleted) and kind == "conversation.item.done")
        ]
        closing = kinds[len(opening) + len(deltas) :]
        assert kinds == opening + [DELTA] * len(deltas) + closing
        assert closing in ([], whole)
        if closing:
            response, said = self.events[-1]["response"], self.events[-len(whole)]["text"]
            assert response["status"] == self.status
            assert response["output"][0]["content"] == [{"type": "output_text", "text": said}]
            assert said == self.text
            assert self.status != "completed" or said == "".join(PIECES)


class Ear:
    """Sorts the client's events into responses, never two at once, and direct answers."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.direct: list[Event] = []
        self._owners: dict[str, Reply] = {}  # by the ids of responses and of their items
        self._event_ids: set[str] = set()

    def hear(self, event: Event) -> None:
        STRICT.validate_python(event)
        assert event["event_id"] not in self._event_ids
        self._event_ids.add(event["event_id"])
        kind = event["type"]
        if kind == "rate_limits.updated":
            assert [each["type"] for each in self.replies[-1].events] == ["response.created"]
        elif kind == "response.created":
            reply = Reply([event])
            assert reply.out_of_band or not self.active, "one response of the conversation at a time"
            self.replies.append(reply)
            self._owners[reply.response_id] = reply
        elif kind.startswith("response."):
            reply = self._owners[event["response"]["id"] if kind == "response.done" else event["response_id"]]
            if kind == "response.output_item.added":
                self._owners[event["item"]["id"]] = reply
            reply.events.append(event)
        elif kind in ("conversation.item.added", "conversation.item.done") and self._is_of_a_reply(event["item"]["id"]):
            self._owners[event["item"]["id"]].events.append(event)
        else:
            self.direct.append(event)

    def _is_of_a_reply(self, item_id: str) -> bool:
        """Else the client has created another one under the id of a reply's item, which it has deleted."""
        owner = self._owners.get(item_id)
        return owner is not None and not owner.done and not owner.deleted

    @property
    def active(self) -> Reply | None:
        """The active response in the conversation."""
        return next((reply for reply in self.replies if not reply.done and not reply.out_of_band), None)

    @property
    def out_of_band(self) -> list[Reply]:
        """The active out-of-band responses."""
        return [reply for reply in self.replies if not reply.done and reply.out_of_band]

    def meant(self, response_id: str | None) -> Reply | None:
        """The response that a cancel refers to."""
        under_way = [reply for reply in (self.active, *self.out_of_band) if reply]
        return (
            self.active
            if response_id is None
            else next((reply for reply in under_way if reply.response_id == response_id), None)
        )

    def take(self) -> list[Event]:
        """The direct answers since the last call."""
        taken, self.direct = self.direct, []
        return taken


@dataclass
class Model:
    """The state that the server should have.

    items: id, role, and text or, of the agent's, the reply, in order. deleted: the same, in the order of the deletions.
    """

    config: Event
    ear: Ear
    default_instructions: str = ""
    items: list[tuple[str, str, str | Reply]] = field(default_factory=list)
    deleted: list[tuple[str, str, str | Reply]] = field(default_factory=list)
    _cancelled: str = ""

    @property
    def known(self) -> list[str]:
        return [known for known, _, _ in self.items]

    @property
    def gone(self) -> list[str]:
        return [gone for gone, _, _ in self.deleted]

    @property
    def last(self) -> str | None:
        return self.items[-1][0] if self.items else None

    def codes(self, event: Event | str) -> set[str]:
        """The codes with which the event may be refused; empty if it must be accepted."""
        if isinstance(event, str):
            return SHAPE_CODES
        if event.get("type") == "conversation.item.create" and isinstance(event["item"].get("content"), list):
            return set(self._item_codes(event))
        if event.get("type") == "conversation.item.create" and event["item"].get("type", "").startswith("function"):
            return set(self._function_codes(event["item"]))
        if "item_id" in event and event["type"] != "conversation.item.truncate":
            # Deleting an item of the transcript again is no error.
            there = self.known if event["type"].endswith("retrieve") else [*self.known, *self.gone]
            return set() if event["item_id"] in there else {f"item_{event['type'].split('.')[-1]}_invalid_item_id"}
        if event.get("type") == "response.create" and event.get("response") != 5:
            return set(self._response_codes(event.get("response") or {}))
        if event.get("type") == "response.cancel" and event.get("response_id") != 5:
            return set() if self.ear.meant(event.get("response_id")) else {"response_cancel_not_active"}
        if event.get("type") == "session.update" and event.get("session") not in UNFIT_SESSIONS:
            return set() if event.get("session", {"type": ""}).get("type", "realtime") == "realtime" else SHAPE_CODES
        return SHAPE_CODES

    def _item_codes(self, event: Event) -> list[str]:
        item, wanted = event["item"], "output_text" if event["item"]["role"] == "assistant" else "input_text"
        wrong = [
            not 1 <= len(item.get("id", "x")) <= 128,
            "\0" in item.get("id", "") or any("\0" in part["text"] for part in item["content"]),
            any(part["type"] != wanted for part in item["content"]),
        ]
        exists = item.get("id") in self.known
        astray = event.get("previous_item_id") not in (None, "root", *self.known)
        return (
            ["invalid_value"] * any(wrong)
            + ["item_create_duplicate_item_id"] * exists
            + ["item_create_invalid_previous_item_id"] * astray
        )

    def _function_codes(self, item: Event) -> list[str]:
        lengths = [len(item[name]) for name in ("id", "call_id", "name") if item.get(name) is not None]
        nul = any("\0" in value for value in item.values() if isinstance(value, str))
        exists = item.get("id") in self.known
        wrong = nul or not all(1 <= length <= 128 for length in lengths)
        return ["invalid_value"] * wrong + ["item_create_duplicate_item_id"] * exists

    def _response_codes(self, response: Event) -> list[str]:
        metadata = response.get("metadata") or {}
        wrong = [
            response.get("conversation") not in (None, "auto", "none"),
            response.get("prompt") is not None,
            response.get("tools") == [{"type": "function"}],
            response.get("tool_choice") not in (None, "none"),
            len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()),
        ]
        codes = ["invalid_value"] * any(wrong) + ["item_not_found"] * bool(response.get("input"))
        if response.get("conversation") == "none":
            return codes + ["too_many_responses"] * (len(self.ear.out_of_band) == OUT_OF_BAND_MAX)
        return codes + ["conversation_already_has_active_response"] * bool(self.ear.active)

    def check(self, event: Event | str, codes: set[str], direct: list[Event]) -> None:
        """Compares the direct answers with the expected ones, and applies their changes."""
        if codes:
            (error,) = direct
            assert error["type"] == "error"
            assert error["error"]["code"] in codes
            assert error["error"]["event_id"] == (None if isinstance(event, str) else event["event_id"])
            return
        assert isinstance(event, dict)
        if event["type"] == "session.update":
            self._merge(event["session"])
            assert [(answer["type"], answer["session"]) for answer in direct] == [("session.updated", self.config)]
        elif event["type"] == "conversation.item.create":
            self._add(event, direct)
        elif "item_id" in event:
            self._touch(event, direct)
        else:
            assert not direct
            self._respond(event)

    def _touch(self, event: Event, direct: list[Event]) -> None:
        (answer,) = direct
        if event["type"] == "conversation.item.retrieve":
            assert (answer["type"], answer["item"]["id"]) == ("conversation.item.retrieved", event["item_id"])
            return
        assert (answer["type"], answer["item_id"]) == ("conversation.item.deleted", event["item_id"])
        if event["item_id"] in self.known:
            item = self.items.pop(self.known.index(event["item_id"]))
            self.deleted.append(item)
            if isinstance(item[2], Reply) and item[2] is self.ear.active:
                item[2].deleted = True

    def _merge(self, patch: Event) -> None:
        cleared: Event = {
            "instructions": self.default_instructions,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
        }
        self.config |= {key: patch[key] or default for key, default in cleared.items() if key in patch}

    def _add(self, event: Event, direct: list[Event]) -> None:
        item, after = event["item"], event.get("previous_item_id") or self.last
        added, done = direct
        assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
        made = added["item"]
        assert done["item"] == made
        assert added["previous_item_id"] == done["previous_item_id"] == (None if after == "root" else after)
        given = {key: value for key, value in item.items() if value is not None}
        assert {key: made[key] for key in given} == given
        assert made["status"] == "completed"
        assert made["id"] not in self.known
        index = 0 if after in (None, "root") else self.known.index(after) + 1
        self.items.insert(index, (made["id"], *said_in(made)))

    def _respond(self, event: Event) -> None:
        reply = self.ear.replies[-1]
        if event["type"] == "response.cancel":
            (reply,) = [each for each in self.ear.replies if each.response_id == self._cancelled]
            assert reply.done, "a cancelled response ends at once"
            reply.status = "cancelled"
            return
        parameters = event.get("response") or {}
        instructions = parameters.get("instructions") or self.config["instructions"]
        reply.status = "failed" if instructions.startswith(PROMPT_FAIL) else "completed"
        assert reply.events[0]["response"]["metadata"] == parameters.get("metadata")
        assert reply.out_of_band == (parameters.get("conversation") == "none")
        if reply.out_of_band:
            return
        announced = reply.events[2]
        assert announced["previous_item_id"] == self.last
        self.items.append((announced["item"]["id"], "assistant", reply))

    def expect(self, event: Event | str) -> set[str]:
        """Notes the expected codes and the target response, before the event is sent."""
        if isinstance(event, dict) and event.get("type") == "response.cancel":
            wanted = event.get("response_id")
            meant = self.ear.meant(wanted) if isinstance(wanted, str | None) else None
            self._cancelled = meant.response_id if meant else ""
        return self.codes(event)

    def whole(self, *, deleted: bool = False) -> list[tuple[str, str, str]]:
        """All items, or the deleted ones, with the agent's texts as far as they were received."""
        items = self.deleted if deleted else self.items
        return [(known, role, said.text if isinstance(said, Reply) else said) for known, role, said in items]


def said_in(item: Event) -> tuple[str, str]:
    """The role and the text that are stored for an item."""
    if item["type"] == "function_call":
        return "assistant", item["arguments"]
    if item["type"] == "function_call_output":
        return "tool", item["output"]
    return item["role"], "".join(part["text"] for part in item["content"])


# --- running a client -----------------------------------------------------------------------------------------------


def resolved(step: Step, number: int, model: Model | None) -> Event | str:
    """The event with its own event_id, and the ids of the items that it refers to, if any."""
    if isinstance(step.event, str):
        return step.event
    event: Event = {**json.loads(json.dumps(step.event)), "event_id": f"mine_{number}"}
    items, gone = ([], []) if model is None else (model.known, model.gone)
    meant = [
        ids[-1 - number]
        for ids, number in ((items, step.item), (gone, step.gone))
        if number is not None and number < len(ids)
    ]
    if meant:
        (event if "item_id" in event else event["item"]).update({"item_id" if "item_id" in event else "id": meant[-1]})
    if step.previous is not None and step.previous < len(items):
        event["previous_item_id"] = items[-1 - step.previous]
    if step.response and model is not None and model.ear.replies:
        event["response_id"] = model.ear.replies[-1].response_id
    return event


@dataclass
class Talk:
    """An open session."""

    client: Client
    ear: Ear
    row: SessionRecord
    untouched: SessionRecord

    async def listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.ear.hear(json.loads(await self.client.ws.get_message()))

    async def leave(self, world: World) -> None:
        """Closes, and waits until only the session's row is left."""
        assert self.row == self.untouched, "a row knows nothing of what goes wrong meanwhile"
        await self.client.ws.aclose()
        await world.emptied()
        assert (self.row.end_reason, self.row.close_code) == ("client_closed", 1000)


async def begin(world: World, nursery: trio.Nursery, query: str = "user=fuzz") -> Talk:
    client = await connect(world, nursery, query)
    await client.until("conversation.created")
    session_id = client.heard[0]["session"]["id"].removeprefix("sess_")
    (row,) = (row for key, row in world.store.sessions.items() if key.hex == session_id)
    talk = Talk(client, Ear(), row, copy(row))
    nursery.start_soon(talk.listen)
    return talk


def patient(sequence: Sequence[Step]) -> None:
    """A client that waits for the answer to each event."""

    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            talk = await begin(world, nursery)
            config = talk.client.heard[0]["session"]
            model = Model(config, talk.ear, config["instructions"])
            for number, step in enumerate(sequence):
                await _take(step, number, talk, model)
            await talk.leave(world)
        check_store(world, talk, model)
        await check_replay(world, talk, model.whole())

    in_a_world(scenario, Measured())


async def _take(step: Step, number: int, talk: Talk, model: Model) -> None:
    if step.seconds:
        await trio.sleep(step.seconds)
        await wait_all_tasks_blocked()
        assert not talk.ear.take()
    else:
        event = resolved(step, number, model)
        codes = model.expect(event)
        await talk.client.send(event)
        await wait_all_tasks_blocked()
        model.check(event, codes, talk.ear.take())
        note(f"{event.get('type') if isinstance(event, dict) else 'broken'}: {sorted(codes)[:1]}")
    for reply in talk.ear.replies:
        reply.check()


def check_store(world: World, talk: Talk, model: Model) -> None:
    stored = world.store.items(talk.row.conversation_id)
    rows = [((item.item_id, item.role, item.content), item.deleted) for item in stored]
    assert [row for row, deleted in rows if not deleted] == model.whole()
    assert sorted(row for row, deleted in rows if deleted) == sorted(model.whole(deleted=True))
    unfinished = {
        known
        for reply in talk.ear.replies
        if not reply.out_of_band and (reply.status != "completed" or not reply.done)
        for known in reply.item_ids
    }
    assert {item.item_id for item in stored if item.status == "incomplete"} == unfinished
    assert {item.session_id for item in stored} <= {talk.row.session_id}


async def check_replay(world: World, before: Talk, items: list[tuple[str, str, str]]) -> None:
    """A new session in the conversation finds it unchanged."""
    async with trio.open_nursery() as nursery:
        conversation = before.client.heard[0]["session"]["conversation_id"]
        talk = await begin(world, nursery, f"user=fuzz&conversation={conversation}")
        await talk.client.send({"type": "foo.bar"})
        await wait_all_tasks_blocked()
        *replayed, error = talk.ear.take()
        assert error["type"] == "error"
        assert [event["type"] for event in replayed] == ["conversation.item.added", "conversation.item.done"] * len(
            items
        )
        assert [event["item"]["id"] for event in replayed[::2]] == [known for known, _, _ in items]
        await talk.leave(world)


def update(**patch: object) -> Step:
    return Step({"type": "session.update", "session": patch})


def creation(said: str, **fields: object) -> Step:
    item = {"role": "user", "content": [{"type": "input_text", "text": said}], **fields}
    return Step({"type": "conversation.item.create", "item": item})


def agents(said: str, *, gone: int) -> Step:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said}]}
    return Step({"type": "conversation.item.create", "item": item}, gone=gone)


def touch(verb: str, item_id: str = "", *, item: int | None = None, gone: int | None = None) -> Step:
    return Step({"type": f"conversation.item.{verb}", "item_id": item_id}, item=item, gone=gone)


ANSWER = Step({"type": "response.create"})


@examples(120)
@example([update(tracing="auto", tools=[{"type": "function", "name": "f"}]), update(), update(tracing=None)])
@example([creation("Hello", id="nul\0"), creation("nul\0"), creation("Hello", id="a"), creation("Hello", id="a")])
@example([creation("Hello", id="a"), touch("delete", "a"), creation("Hi", id="a"), touch("delete", "a")])
@example([ANSWER, touch("delete", item=0), agents("Well", gone=0), touch("retrieve", item=0), Step(seconds=5.0)])
@example([ANSWER, Step(seconds=5.0), touch("delete", item=0), agents("Well", gone=0), touch("delete", gone=0)])
@example([ANSWER, touch("delete", item=0), touch("delete", gone=0), Step(seconds=5.0), touch("delete", gone=0)])
@given(steps)
def test_any_order_of_events_is_answered_as_the_model_predicts(sequence: list[Step]) -> None:
    patient(sequence)


@examples(80)
@given(steps.map(lambda sequence: [step for step in sequence if not step.seconds]), st.booleans())
def test_pipelined_events_are_each_answered_once_and_in_order(sequence: list[Step], stay: bool) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            talk = await begin(world, nursery)
            for number, step in enumerate(sequence):
                await talk.client.send(resolved(step, number, None))
            await trio.sleep(len(PIECES) * PIECE_SECONDS + 1 if stay else 0)
            await wait_all_tasks_blocked()
            check_direct(talk, sequence)
            await talk.leave(world)
        check_acknowledged(world, talk)

    in_a_world(scenario, Measured())


def check_direct(talk: Talk, sequence: list[Step]) -> None:
    """Each event has one answer; that of a cancel may be the end of its response."""
    kinds = [event["type"] for event in talk.ear.direct if event["type"] != "conversation.item.added"]
    kinds += ["response.created"] * len(talk.ear.replies)
    cancels = sum(isinstance(step.event, dict) and step.event.get("type") == "response.cancel" for step in sequence)
    assert len(sequence) - cancels <= len(kinds) <= len(sequence)
    mine = [event["error"]["event_id"] for event in talk.ear.direct if event["type"] == "error"]
    numbers = [int(event_id.removeprefix("mine_")) for event_id in mine if event_id is not None]
    assert numbers == sorted(set(numbers))


def check_acknowledged(world: World, talk: Talk) -> None:
    items = world.store.items(talk.row.conversation_id)
    stored = {item.item_id: item for item in items}
    acknowledged = [event["item"]["id"] for event in talk.ear.direct if event["type"] == "conversation.item.done"]
    own = [reply for reply in talk.ear.replies if not reply.out_of_band]
    finished = [known for reply in own if reply.done for known in reply.item_ids]
    unfinished = [known for reply in own if not reply.done for known in reply.item_ids]
    kept = [item.item_id for item in items if not item.deleted]
    assert len(set(kept)) == len(kept)
    assert sorted(item.item_id for item in items) == sorted(acknowledged + finished + unfinished)
    assert all(stored[known].status == "incomplete" for known in unfinished)


# --- agents that yield anything -------------------------------------------------------------------------------------


class Babbling(ScriptedAgent):
    """Echoes the bystander; yields the given pieces to others, then may raise the given error."""

    def __init__(self, pieces: list[str], failure: str | None) -> None:
        self._pieces = pieces
        self._failure = failure

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        if turn.user_id == "bystander":
            yield f"You said: {turn.messages[-1].text}"
            return
        for piece in self._pieces:
            yield piece
        if self._failure is not None:
            raise AgentFailed("agent_error", self._failure)


# A list, because an alphabet of `st.text` would make these few characters as rare as all others; lone surrogates too.
any_text = st.lists(st.characters() | st.sampled_from(["\0", "\ud83d", "\ude00", "\u2028"]), max_size=5).map("".join)


@examples(60)
@example(["Hi \ud83d", "\ude00", "\0"], None)
@example([], "\ud83d")
@given(st.lists(any_text, max_size=4), st.none() | any_text)
def test_whatever_the_agent_yields_its_response_ends_and_the_session_goes_on(
    pieces: list[str], failure: str | None
) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            talk = await begin(world, nursery)
            for _ in range(2):
                await talk.client.send({"type": "response.create"})
                await wait_all_tasks_blocked()
                assert talk.ear.active is None
            assert [reply.events[-1]["response"]["status"] for reply in talk.ear.replies] == [
                "completed" if failure is None else "failed"
            ] * 2
            await talk.leave(world)
        check_acknowledged(world, talk)

    in_a_world(scenario, Babbling(pieces, failure))
