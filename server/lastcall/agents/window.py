"""The context window: selects the items of a long conversation that fit a budget. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

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
    sizes = [chars_of(item) + item_chars for item in items]
    if sum(sizes) <= chars_max:
        return list(items)
    kept = _kept(items, sizes, chars_max)
    selected = list(_with_their_calls(items, kept))
    return [*selected[:-1], *(_ending(item, chars_max) for item in selected[-1:])] if cut_newest else selected


def _kept(items: Sequence[ContextItem], sizes: Sequence[int], chars_max: int) -> set[int]:
    """The indices of the items that fit."""
    kept = {*range(len(items))[-1:], *_call_of_the_newest(items)}
    left = chars_max - sum(sizes[index] for index in kept)
    systems = [index for index, item in enumerate(items) if isinstance(item, Message) and item.role == "system"]
    known = kept.union(systems)
    others = (index for index in reversed(range(len(items))) if index not in known)
    for index in chain((index for index in reversed(systems) if index not in kept), others):
        left -= sizes[index]
        if left < 0:
            break
        kept.add(index)
    return kept


def _call_of_the_newest(items: Sequence[ContextItem]) -> list[int]:
    newest = items[-1] if items else None
    if not isinstance(newest, FunctionOutput):
        return []
    for index in reversed(range(len(items))):
        if isinstance(call := items[index], FunctionCall) and call.call_id == newest.call_id:
            return [index]
    return []


def _with_their_calls(items: Sequence[ContextItem], kept: set[int]) -> Iterator[ContextItem]:
    """The kept items, without outputs whose call is not kept. Outputs that never had a call stay."""
    left_out: set[str] = set()
    for index, item in enumerate(items):
        if isinstance(item, FunctionCall):
            (left_out.discard if index in kept else left_out.add)(item.call_id)
        if index in kept and not (isinstance(item, FunctionOutput) and item.call_id in left_out):
            yield item


def chars_of(item: ContextItem) -> int:
    """The size of an item, in characters."""
    if isinstance(item, Message):
        return len(item.text)
    return len(item.output) if isinstance(item, FunctionOutput) else len(item.name) + len(item.arguments)


def _ending(item: ContextItem, chars_max: int) -> ContextItem:
    match item:
        case Message(text=text) if len(text) > chars_max:
            return replace(item, text=text[-chars_max:])
        case FunctionOutput(output=output) if len(output) > chars_max:
            return replace(item, output=output[-chars_max:])
    return item
