"""The names by which an operator finds a session in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

from ..auth.identity import Principal
from ..sessions.session import Session


def log_names(
    session: Session, principal: Principal, address: str, instance_id: UUID
) -> Callable[[], Mapping[str, object]]:
    """For `logs.name_lines`.

    address: of the client. key_id is that of the key that its client secret belongs to; tokens have none.
    """
    key_id = principal.key_id or principal.credential_id
    ids = (session.session_id, session.conversation_id, session.user_id)  # not the session: tasks may outlive it
    return partial(_names, *ids, address, instance_id, key_id)


def _names(
    session_id: UUID, conversation_id: UUID, user_id: str, address: str, instance_id: UUID, key_id: UUID | None
) -> Mapping[str, object]:
    names = {
        "session_id": str(session_id),
        "conversation_id": str(conversation_id),
        "user_id": user_id,
        "address": address,
        "instance_id": str(instance_id),
    }
    return names if key_id is None else {**names, "key_id": str(key_id)}
