"""What the server has to do without at the moment, and why."""

from __future__ import annotations


class Conditions:
    """Parts that are away, each with a reason in a few words. `/readyz` tells them."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def set(self, name: str, reason: str) -> None:
        """Says that a part is away, or that it is for another reason by now."""
        self._reasons[name] = reason

    def clear(self, name: str) -> None:
        """Says that a part is there."""
        self._reasons.pop(name, None)

    def away(self) -> str | None:
        """All that is away; None: nothing is."""
        return "; ".join(f"{name} is away: {reason}" for name, reason in self._reasons.items()) or None
