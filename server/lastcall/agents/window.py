"""What an agent is given of a conversation that has grown beyond its budget. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .agent import ContextItem, FunctionCall, FunctionOutput, Message


def within_budget(items: Sequence[ContextItem], chars_max: int) -> list[ContextItem]:
    """The newest items of at most so many characters in all; those of role system come first, then the others.

    What came before the first one that does not fit is left out with it: half a conversation may be told, but not with
    holes. The newest item is always kept, and with an output its call; an output whose call is left out goes with it:
    models refuse a conversation with half of the pair.
    """
    always = [*items[-1:], *_call_of_the_newest(items)]
    kept, left = {id(item) for item in always}, chars_max - sum(map(_chars, always))
    for systems in (True, False):
        for item in reversed(items):
            if id(item) not in kept and _is_system(item) is systems:
                left -= _chars(item)
                if left < 0:
                    break
                kept.add(id(item))
    return list(_with_their_calls(items, kept))


def _call_of_the_newest(items: Sequence[ContextItem]) -> list[ContextItem]:
    newest = items[-1] if items else None
    if not isinstance(newest, FunctionOutput):
        return []
    calls = (item for item in reversed(items) if isinstance(item, FunctionCall) and item.call_id == newest.call_id)
    return [call for call in [next(calls, None)] if call is not None]


def _with_their_calls(items: Sequence[ContextItem], kept: set[int]) -> Iterator[ContextItem]:
    """The kept items, but for outputs of calls that are not. Whose call never was there is not ours to judge."""
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
