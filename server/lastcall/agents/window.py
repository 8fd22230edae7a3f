"""The context window: selects the items of a long conversation that fit a budget. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .agent import ContextItem, FunctionCall, FunctionOutput, Message


def within_budget(
    items: Sequence[ContextItem], chars_max: int, *, item_chars: int = 0, cut_newest: bool = False
) -> list[ContextItem]:
    """Selects the newest items that fit, oldest first. Items of role system are selected before the others.

    Selection stops at the first item that does not fit, so that the conversation has no holes. The newest item is
    always kept, and with an output its call. Any other output without its call is left out: models refuse half a pair.

    Args:
        items: The conversation, oldest first.
        chars_max: The budget, in characters.
        item_chars: Overhead of each item, in characters.
        cut_newest: Cuts the newest item to its last `chars_max` characters; else it is kept whole, even above budget.
    """
    always = [*items[-1:], *_call_of_the_newest(items)]
    kept, left = {id(item) for item in always}, chars_max - sum(_chars(item) + item_chars for item in always)
    for systems in (True, False):
        for item in reversed(items):
            if id(item) not in kept and _is_system(item) is systems:
                left -= _chars(item) + item_chars
                if left < 0:
                    break
                kept.add(id(item))
    selected = list(_with_their_calls(items, kept))
    return [*selected[:-1], *(_ending(item, chars_max) for item in selected[-1:])] if cut_newest else selected


def _call_of_the_newest(items: Sequence[ContextItem]) -> list[ContextItem]:
    newest = items[-1] if items else None
    if not isinstance(newest, FunctionOutput):
        return []
    calls = (item for item in reversed(items) if isinstance(item, FunctionCall) and item.call_id == newest.call_id)
    return [call for call in [next(calls, None)] if call is not None]


def _with_their_calls(items: Sequence[ContextItem], kept: set[int]) -> Iterator[ContextItem]:
    """The kept items, without outputs whose call is not kept. Outputs that never had a call stay."""
    left_out: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCall):
            (left_out.discard if id(item) in kept else left_out.add)(item.call_id)
        if id(item) in kept and not (isinstance(item, FunctionOutput) and item.call_id in left_out):
            yield item


def _is_system(item: ContextItem) -> bool:
    return isinstance(item, Message) and item.role == "system"


def _chars(item: ContextItem) -> int:
    match item:
        case Message():
            return len(item.text)
        case FunctionCall():
            return len(item.name) + len(item.arguments)
        case FunctionOutput():
            return len(item.output)


def _ending(item: ContextItem, chars_max: int) -> ContextItem:
    match item:
        case Message(text=text) if len(text) > chars_max:
            return replace(item, text=text[-chars_max:])
        case FunctionOutput(output=output) if len(output) > chars_max:
            return replace(item, output=output[-chars_max:])
    return item
