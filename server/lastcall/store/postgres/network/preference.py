"""The order in which alternatives are tried."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Alternative = TypeVar("Alternative", bound=Hashable)

REMEMBERED_MAX = 256


class Preference(Generic[Alternative]):
    """Puts the alternative that worked last first, and those that hung last; it keeps the order of the others."""

    def __init__(self) -> None:
        self._worked: Alternative | None = None
        self._hung: dict[Alternative, None] = {}

    def order(self, alternatives: Iterable[Alternative]) -> list[Alternative]:
        hung = {each: position for position, each in enumerate(self._hung)}
        return sorted(alternatives, key=lambda each: -1 if each == self._worked else hung.get(each, -1) + 1)

    def worked(self, alternative: Alternative) -> None:
        self._worked = alternative
        self._hung.pop(alternative, None)

    def hung(self, alternative: Alternative) -> None:
        if alternative == self._worked:
            self._worked = None
        self._hung.pop(alternative, None)
        if len(self._hung) < REMEMBERED_MAX:
            self._hung[alternative] = None
