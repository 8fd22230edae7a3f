"""The store in PostgreSQL, put together from its parts."""

from __future__ import annotations

from .conversations import ConversationQueries
from .credentials import CredentialQueries
from .instances import InstanceQueries
from .memories import MemoryQueries
from .writes import SessionWrites


class PostgresStore(SessionWrites, InstanceQueries, ConversationQueries, MemoryQueries, CredentialQueries):
    """Implements `lastcall.store.store.Store`; that protocol documents its methods."""
