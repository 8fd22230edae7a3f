"""What an agent's code may raise into the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class AgentBroken(Exception):
    """An agent raised what is no `Exception`, such as `SystemExit`."""


@contextmanager
def contained() -> Iterator[None]:
    """Lets out of an agent's code nothing but `Exception`s and cancellation.

    A `yield` inside an agent's own nursery comes out as a group around `GeneratorExit` when the generator is closed:
    no `except Exception` holds it, and it would end the server.
    """
    try:
        yield
    except (Exception, trio.Cancelled):
        raise
    except BaseException as error:
        cancelled = error.subgroup(trio.Cancelled) if isinstance(error, BaseExceptionGroup) else None
        if cancelled is not None:
            raise cancelled from None
        raise AgentBroken(repr(error)) from error
