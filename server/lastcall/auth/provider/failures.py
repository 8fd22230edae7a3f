"""Why a sign-in at the provider failed."""

from __future__ import annotations

from typing import Literal

# For the page, which has a sentence for each.
FailureCode = Literal["expired", "denied", "away", "refused", "domain", "busy"]


class SignInFailed(Exception):
    """A sign-in that did not succeed. code: for the page; the message is for the log, and quotes no secret."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code
