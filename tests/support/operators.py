"""Who acts in tests of what operators do."""

from __future__ import annotations

from lastcall.store.operators.acts import Actor

OPERATOR = Actor("tests", "command")
