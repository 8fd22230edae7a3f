"""Where Trio looks for its runner and the running task while a world runs."""

from __future__ import annotations

from typing import Any


class Context:
    """What Trio keeps by thread: a world has one, and is asked for it four hundred times a session."""

    runner: Any
    task: Any


CONTEXT = Context()
