"""The turns of `lastcall chat`, with what a person does in between: Ctrl-C, or nothing until the session is closed."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import trio

from .talk import Talk, text_of
from .terminal import PROMPT, Terminal
from .wire import Address, Event, Lost

EARLIER_ITEMS = 10  # that are shown of a conversation that is resumed
HELP = "Ctrl-C stops an answer, Ctrl-D ends."


async def talk_to(address: Address, text: str | None, conversation: str | None) -> bool:
    """Has one turn with a text, or else one with each line that is typed.

    Returns whether everything was answered. Raises `Lost`.
    """
    terminal, answered = Terminal(), False
    async with trio.open_nursery() as nursery:
        talk = Talk(nursery, address, terminal, conversation)
        items = await talk.open()
        try:
            if text is None:
                answered = await _turns(talk, terminal, items)
            else:
                answered = await talk.say(text)
                terminal.answered()
        finally:
            talk.close()
    return answered


async def _turns(talk: Talk, terminal: Terminal, items: Sequence[Event]) -> bool:
    """A turn for each line. Returns whether all were answered."""
    answered = True
    _greet(talk, terminal, items)
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, interrupts, talk, nursery.cancel_scope)
            while (line := await _next_line(talk, terminal)) is not None:
                if line.strip():
                    answered &= await talk.say(line)
                    terminal.answered()
            nursery.cancel_scope.cancel()
    if terminal.shown:
        terminal.note(f"\nTo go on: lastcall chat --conversation {talk.conversation}")
    return answered


def _greet(talk: Talk, terminal: Terminal, items: Sequence[Event]) -> None:
    if terminal.shown:
        terminal.note(f"{HELP}\n")
        for item in items[-EARLIER_ITEMS:]:
            if item["type"] == "message":
                terminal.piece(f"{PROMPT}{text_of(item)}\n" if item["role"] == "user" else f"{text_of(item)}\n\n")


async def _interrupt(interrupts: AsyncIterator[int], talk: Talk, everything: trio.CancelScope) -> None:
    """Ctrl-C stops an answer; where there is none, or it does not stop, it ends the conversation."""
    async for _ in interrupts:
        if not talk.answering or talk.stopping:
            everything.cancel()
            return
        with suppress(Lost):
            await talk.stop()


async def _next_line(talk: Talk, terminal: Terminal) -> str | None:
    line = None
    terminal.prompt()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_loss, talk, terminal)
        line = await terminal.line()
        nursery.cancel_scope.cancel()
    return line


async def _tell_loss(talk: Talk, terminal: Terminal) -> None:
    """Tells at once that the session is over; what is said next opens another one."""
    try:
        await talk.until_lost()
    except Lost as lost:
        if terminal.shown:
            terminal.note(f"({lost})")
            terminal.prompt()
