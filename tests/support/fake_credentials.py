"""The fake's statements on API keys and client secrets."""

from __future__ import annotations

import math
from dataclasses import replace
from uuid import UUID

import trio
from lastcall.auth.identity import Scope
from lastcall.store.credentials import ClientSecret, Credential, SignIn
from lastcall.store.errors import CredentialRevoked, InvalidRow
from lastcall.store.records import EndReason

from .fake_rows import USER_CHARS, CredentialRecord, check_text
from .fake_tables import FakeTables


class FakeCredentials(FakeTables):
    """API keys and client secrets, in one table."""

    def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        """Does what `lastcall keys create` does."""
        self.credentials[credential.credential_id] = CredentialRecord(credential=credential, secret_hash=secret_hash)

    def revoke(self, credential_id: UUID) -> None:
        """Does what `lastcall keys revoke` does: revokes what was made with it too, and closes the sessions of all."""
        for key, record in self.credentials.items():
            if credential_id in (key, record.credential.key_id, record.link_id) and not record.revoked:
                record.revoked = True
                self._close_sessions_of(key)

    def _close_sessions_of(self, credential_id: UUID) -> None:
        for session in self.sessions.values():
            if session.is_active and session.credential_id == credential_id:
                self._close(session, trio.current_time(), EndReason.REVOKED, None, None)

    def _keys_exist(self) -> bool:
        return any(record.credential.scope in ("service", "user", "admin") for record in self.credentials.values())

    def _find_credential(self, secret_hash: bytes) -> Credential | None:
        found = self._valid(secret_hash)
        return None if found is None or found.form == "link" else found

    def _valid(self, secret_hash: bytes) -> Credential | None:
        record = next((each for each in self.credentials.values() if each.secret_hash == secret_hash), None)
        valid = record is not None and not record.revoked and record.expires_at > trio.current_time()
        if record is None or not valid:
            return None
        left = record.expires_at - trio.current_time()
        return replace(record.credential, seconds_left=left if math.isfinite(left) else None)

    def _create_client_secret(self, secret: ClientSecret) -> int:
        check_text(secret.user_id, USER_CHARS)
        if secret.key_id is not None and not self._may_begin(secret.key_id):
            raise CredentialRevoked("the key was revoked")
        if secret.conversation_id and self.conversations.get(secret.conversation_id) != secret.user_id:
            raise InvalidRow("the user has no such conversation")
        credential = Credential(
            credential_id=secret.secret_id,
            key_id=secret.key_id,
            user_id=secret.user_id,
            scope=Scope.CLIENT,
            conversation_id=secret.conversation_id,
            session=secret.session,
            form=secret.form,
            origin=secret.origin,
        )
        expires_at = trio.current_time() + secret.seconds
        self.credentials[secret.secret_id] = CredentialRecord(
            credential=credential, secret_hash=secret.secret_hash, expires_at=expires_at
        )
        return int(expires_at)

    def _trade_secret(
        self, secret_hash: bytes, cookie_id: UUID, cookie_hash: bytes, link_seconds: float
    ) -> SignIn | None:
        found = self._valid(secret_hash)
        if found is None or found.scope != Scope.CLIENT or found.seconds_left is None:
            return None
        is_link, traded = found.form == "link", self.credentials[found.credential_id]
        if traded.used if is_link else (found.form != "bearer" or found.key_id is None):
            return None
        traded.used = is_link
        seconds = link_seconds if is_link else found.seconds_left
        self.credentials[cookie_id] = CredentialRecord(
            credential=replace(found, credential_id=cookie_id, form="cookie"),
            secret_hash=cookie_hash,
            expires_at=trio.current_time() + seconds,
            link_id=found.credential_id,
        )
        return SignIn(user_id=found.user_id, seconds=seconds)

    def _sign_out(self, cookie_hash: bytes) -> bool:
        found = self._find_credential(cookie_hash)
        if found is None or found.form != "cookie":
            return False
        self.revoke(found.credential_id)
        return True
