"""The names by which an operator finds a session in the log."""

from __future__ import annotations

from contextlib import AbstractContextManager
from uuid import UUID

from structlog.contextvars import bound_contextvars

from ..auth.identity import Principal
from ..sessions.session import Session


def logged_names(
    session: Session, principal: Principal, address: str, instance_id: UUID
) -> AbstractContextManager[None]:
    """Within the block, and in tasks that it starts, every line of the log names the session.

    address: of the client. key_id is that of the key that its client secret belongs to; tokens have none.
    """
    key_id = principal.key_id or principal.credential_id
    names = {
        "session_id": str(session.session_id),
        "conversation_id": str(session.conversation_id),
        "user_id": session.user_id,
        "address": address,
        "instance_id": str(instance_id),
    }
    return bound_contextvars(**names if key_id is None else {**names, "key_id": str(key_id)})
