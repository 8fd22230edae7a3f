"""The seam between the server and its database: no code above it knows SQL, no code below it knows sockets.

`postgres/` implements it; `tests/support/fake_store.py` is a fake that passes the same tests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from .conversations.seam import ConversationStore
from .credentials import ClientSecret, Credential, SignIn
from .lease import InstanceStore
from .operators.census import CensusStore
from .people.meanings import MeaningResult
from .people.store import PeopleStore
from .records import (
    FinishedMemory,
    ItemDeletion,
    MemoryClaim,
    PastTurn,
    Recollection,
    SearchResult,
    SessionEnd,
    SessionStart,
    StoredRow,
)
from .reports import Rows


class Store(InstanceStore, ConversationStore, PeopleStore, CensusStore, Rows, Protocol):
    """All operations on the database.

    All are idempotent, and all raise `StoreUnavailable` if the database does not answer in time: reads after some
    seconds, writes after `within`. Writes without `within` are retried until they are committed or the store is closed.
    Times of starts and ends are on this process's monotonic clock, `trio.current_time()`, in seconds; the database
    turns them into its own time.
    """

    async def prove_commit(self, instance_id: UUID) -> None:
        """Returns if the database would begin a session of the instance, store an item and end it. Leaves no rows.

        Raises:
            CommitRefused: It would not; the message is the database's own reason.
        """
        ...

    async def begin_session(self, start: SessionStart, *, within: float) -> Recollection | None:
        """Commits an active row; creates the conversation if it is new.

        Args:
            start: The session, and how many memories are recalled with it.
            within: Seconds after which the caller gives up; whether the row was committed is then unknown.

        Returns: As `recall`; None where the start does not ask, or that would have held up the commits of others.

        Raises:
            InstanceGone: The instance was declared dead or has stopped.
            CredentialRevoked: The key or client secret was revoked.
            InvalidRow: The conversation belongs to another user, or the database refused the data.
        """
        ...

    async def append_items(self, items: Sequence[StoredRow], *, within: float) -> None:
        """Commits items, all or none, and figures of responses: these also where the session's row is closed.

        Args:
            items: At least one row, all of one session. Figures of a session that is deleted are not kept.
            within: Seconds after which the caller gives up; whether the items were committed is then unknown.

        Raises:
            SessionClosed: The session's row is closed, and there are items.
            ItemExists: The conversation has another item with such an id that is not deleted.
            InvalidRow: The database refused the data.
        """
        ...

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        """Commits that an item is deleted, also if it was before. Its id is free again.

        Args:
            deletion: The item.
            within: Seconds after which the caller gives up; whether it was committed is then unknown.

        Raises:
            SessionClosed: The session's row is closed.
            ItemNotFound: The session's conversation has no such item.
        """
        ...

    async def end_session(self, end: SessionEnd) -> bool:
        """Commits the end of a session, and its unfinished items before. The write goes on if the caller is cancelled.

        Returns:
            Whether this call closed the row; False: it was closed before.
        """
        ...

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredRow]) -> Collection[UUID]:
        """Ends all active sessions of an instance in one statement, with reason `shutdown`.

        They ended now, however long the commit takes, or with an item that was stored later than that. Ends that are
        queued already come first. The write goes on if the caller is cancelled.

        Args:
            instance_id: The instance.
            unfinished: Items and figures of these sessions that are not stored yet; they are committed before.

        Returns:
            The sessions that it ended.
        """
        ...

    # --- credentials

    async def keys_exist(self) -> bool:
        """Returns whether there is any API key; revoked ones count, deleted ones do not."""
        ...

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        """Returns the valid key or client secret with this SHA-256."""
        ...

    async def create_client_secret(self, secret: ClientSecret) -> int:
        """Stores a client secret.

        Returns:
            When it expires, in Unix seconds on the database's clock.

        Raises:
            CredentialRevoked: The key that creates it was revoked.
            InvalidRow: The user has no such conversation.
        """
        ...

    async def trade_secret(
        self, secret_hash: bytes, cookie_id: UUID, cookie_hash: bytes, *, link_seconds: float
    ) -> SignIn | None:
        """Signs a browser in: trades a link, which can be done once, or a client secret, for a cookie.

        Args:
            secret_hash: SHA-256 of the link's secret, or of the client secret.
            cookie_id: The cookie's id.
            cookie_hash: SHA-256 of the cookie.
            link_seconds: For which a link's cookie is valid; a client secret's expires with that one.

        Returns:
            Who is signed in; None where the secret is wrong, expired, revoked or used, or was made without a key.
        """
        ...

    async def sign_out(self, cookie_hash: bytes) -> bool:
        """Revokes a cookie, which ends its sessions on all servers.

        Returns:
            Whether it was valid.
        """
        ...

    async def finish_revocations(self) -> int:
        """Closes sessions that a revocation has overlooked: one made by hand, with an older snapshot.

        Returns:
            The number of sessions that it closed.
        """
        ...

    # --- memories

    async def claim_memory(
        self, limit: int, lease_seconds: float, *, session_ids: Sequence[UUID] | None = None
    ) -> Sequence[MemoryClaim]:
        """Claims up to `limit` closed sessions with pending memory; nobody else gets them for `lease_seconds`.

        Together they have no more than `CLAIM_BYTES_MAX` of transcripts; a longer session is claimed alone.

        session_ids: claims none but these, where they are pending and free.
        """
        ...

    async def finish_memory(
        self, finished: Sequence[FinishedMemory], *, lifetime_seconds: float | None = None
    ) -> Collection[UUID]:
        """Keeps the memories of sessions, makes their turns searchable and marks them as done: all, or none.

        Newer facts supersede older ones; nothing is kept that was forgotten or deleted.

        Args:
            finished: What is kept of each session.
            lifetime_seconds: Of each memory; None: forever.

        Returns: The sessions that were still pending; of the others nothing is kept.

        Raises:
            InvalidRow: The database refused something, of whichever session.
        """
        ...

    async def renew_memory(self, claims: Sequence[MemoryClaim], lease_seconds: float) -> None:
        """Keeps claims for `lease_seconds` from now, where nobody else has taken them over."""
        ...

    async def release_memory(self, session_ids: Sequence[UUID]) -> None:
        """Gives claims back: the sessions are due at once, and the attempt does not count."""
        ...

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        """Records a failed attempt: due again after `retry_after` seconds, or `failed` for good if that is None."""
        ...

    # --- turns of the past

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        """Looks for passages of the user's past with the words of a question.

        Args:
            user_id: The user; nobody else's turns are found.
            words: Each with its text and its other key, as in `memory.search.words.Word`.
            stemmer: Of the question's language, as PostgreSQL names it; None where it is not known.
            passages_max: The number of passages that are returned, those that could hold the best turns.
        """
        ...

    async def search_meanings(
        self, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        """Looks for turns that mean what a question means; only where they are searched by meaning.

        Args:
            user_id: The user; nobody else's turns are found.
            vector: The question's: see `memory.meaning.encoder.Encoder`.
            among: Passages that are returned in any case, as far as they have meanings.
            passages_max: The number of further passages, those with the nearest turns.
        """
        ...

    async def read_turns(self, user_id: str, turns: Sequence[tuple[int, int]], chars_max: int) -> Sequence[PastTurn]:
        """Returns what was said, in the order of `turns`, without what was deleted.

        Args:
            user_id: The user.
            turns: Each with its passage and its number there.
            chars_max: Of the beginning of each text.
        """
        ...
