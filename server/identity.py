"""Whose request it is, where no API keys are set: one rule for HTTP and for WebSockets. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

USER_HEADER = "openai-safety-identifier"
USER_QUERY = "user"
ANONYMOUS = "anonymous"
USER_CHARS_MAX = 256

_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # controls, lone surrogates, line and paragraph separators


def user_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The user id of a request: the header `OpenAI-Safety-Identifier`, else `?user=`, else `anonymous`.

    headers: names in lower case (or any mapping that ignores case), values decoded as Latin-1, as HTTP/1.1 has them.
    query: percent-decoded; of a key given several times, its last value.
    Raises `ValueError`, with a sentence for the client, for an id that is too long or holds control characters.
    """
    user = headers.get(USER_HEADER, "").strip() or query.get(USER_QUERY, "").strip() or ANONYMOUS
    if len(user) > USER_CHARS_MAX:
        raise ValueError(f"The user id has {len(user)} characters; at most {USER_CHARS_MAX} are allowed.")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in user):
        raise ValueError("The user id holds control characters; use printable ones only.")
    return user
