"""Builds the turn that an agent answers: context, instructions and tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET

from ..agents.agent import KnownFact, Turn
from ..agents.recalled import RecalledTurn
from ..agents.window import within_budget
from ..config import Settings
from ..limits.limit import Limit
from ..memory.search.asked import Find, TurnSearch
from ..memory.search.quoting import quoted
from ..protocol.client_events import NewItem, ResponseCreate, ResponseParams
from ..protocol.server_events import RealtimeSession
from ..sessions.session import Session
from .timeline import Context, ConversationEntry, Timeline
from .validation import chosen_tool, item_not_found, new_item, offered_tools


def with_briefing(instructions: str, briefing: str) -> str:
    """The instructions, followed by what is remembered of the user."""
    return f"{instructions}\n\n{briefing}" if briefing else instructions


class TurnBuilder:
    """Builds the turns of one session.

    briefing, facts: what is remembered of the user, as text and for agents.
    find: finds what was said in the user's past, for agents that search; None: there is none.
    count: counts refusals per limit; here, contexts that had to be shortened.
    """

    def __init__(
        self,
        session: Session,
        timeline: Timeline,
        briefing: str,
        settings: Settings,
        count: Callable[[Limit], None],
        facts: Sequence[KnownFact] = (),
        find: Find | None = None,
    ) -> None:
        self._session = session
        self._timeline = timeline
        self._briefing = briefing
        self._settings = settings
        self._count = count
        self._facts = facts
        self._find = find

    def build(
        self,
        event: ResponseCreate,
        params: ResponseParams,
        config: RealtimeSession,
        recalled: Sequence[RecalledTurn] = (),
    ) -> tuple[Turn, int]:
        """The turn that `response.create` asks for, and the bytes of its items' texts. Raises `EventRejected`."""
        context = self._fitting(self._context(event, params))
        tools = offered_tools(event, config.tools if params.tools is None else params.tools, "response.tools")
        choice = chosen_tool(event, params.tool_choice or config.tool_choice, tools, "response.tool_choice")
        limit = params.max_output_tokens or config.max_output_tokens
        parallel = config.parallel_tool_calls if params.parallel_tool_calls is None else params.parallel_tool_calls
        instructions = config.instructions
        if params.instructions:
            instructions = with_briefing(params.instructions, self._briefing)
        turn = Turn(
            user_id=self._session.user_id,
            conversation_id=config.conversation_id,
            instructions=with_briefing(instructions, quoted(recalled)),
            messages=context.messages,
            max_output_tokens=limit if isinstance(limit, int) else None,
            items=context.items,
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=None if parallel is UNSET else parallel,
            recalled=recalled,
            facts=self._facts,
            search=TurnSearch(self._find) if self._find is not None and params.input is None else None,
        )
        return turn, context.bytes

    def _fitting(self, context: Context) -> Context:
        if context.chars <= self._settings.context_chars_max:
            return context
        kept = Context.of(within_budget(context.items, self._settings.context_chars_max))
        if len(kept.items) < len(context.items):
            self._count(Limit.CONTEXT)
        return kept

    def _context(self, event: ResponseCreate, params: ResponseParams) -> Context:
        """The conversation, or the response's own input: new items, and references to items of the conversation."""
        if params.input is None:
            return self._timeline.context()
        entries = (self._input_entry(event, item, f"response.input[{n}]") for n, item in enumerate(params.input))
        return Context.of(seen for entry in entries if (seen := entry.context()) is not None)

    def _input_entry(self, event: ResponseCreate, item: NewItem, param: str) -> ConversationEntry:
        if item.type != "item_reference":
            return ConversationEntry(new_item(event, item, param))
        entry = self._timeline.get(item.id or "")
        if entry is None:
            raise item_not_found(event, item.id or "", f"{param}.id")
        return entry
