"""Keys and client secrets."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio
from lastcall.auth.identity import Scope
from lastcall.store.credentials import Credential, Form, SignIn
from lastcall.store.errors import CredentialRevoked, InvalidRow
from lastcall.store.postgres import PostgresStore

from .world import HASH, OTHER_HASH, WAIT_SECONDS, World, key_of, secret_of


async def test_keys_exist_from_the_first_one_on_also_when_all_are_revoked(world: World) -> None:
    assert not await world.store.keys_exist()
    await world.store.create_client_secret(secret_of(None))
    assert not await world.store.keys_exist()
    key = await key_of(world)
    assert await world.store.keys_exist()
    await world.revoke(key.credential_id)
    assert await world.store.keys_exist()


async def test_a_key_is_found_by_its_hash_until_it_is_revoked(world: World) -> None:
    key = await key_of(world)
    assert await world.store.find_credential(HASH) == key
    assert await world.store.find_credential(OTHER_HASH) is None
    await world.revoke(key.credential_id)
    assert await world.store.find_credential(HASH) is None


async def test_a_client_secret_is_found_with_all_that_it_is_bound_to(world: World) -> None:
    start, key = await world.begin(), await key_of(world)
    session = '{"instructions": "Be brief."}'
    secret = secret_of(key, conversation_id=start.conversation_id, session=session)
    await world.store.create_client_secret(secret)
    assert await world.store.find_credential(OTHER_HASH) == Credential(
        credential_id=secret.secret_id,
        key_id=key.key_id,
        user_id="ada",
        scope=Scope.CLIENT,
        conversation_id=start.conversation_id,
        session=session,
    )


async def test_an_expired_client_secret_is_not_found_and_ends_nothing(world: World) -> None:
    secret = secret_of(await key_of(world), seconds=0)
    await world.store.create_client_secret(secret)
    assert await world.store.find_credential(OTHER_HASH) is None
    start = await world.begin(credential_id=secret.secret_id)  # it was found a moment before
    assert (await world.session(start.session_id)).is_active


@pytest.mark.parametrize("revoked", ["the key", "the secret"])
async def test_a_client_secret_goes_with_its_key(world: World, revoked: str) -> None:
    key = await key_of(world)
    secret = secret_of(key)
    await world.store.create_client_secret(secret)
    await world.revoke(key.credential_id if revoked == "the key" else secret.secret_id)
    assert await world.store.find_credential(OTHER_HASH) is None
    assert (await world.store.find_credential(HASH) is None) == (revoked == "the key")


async def test_a_revoked_key_makes_no_client_secrets(world: World) -> None:
    key = await key_of(world)
    await world.revoke(key.credential_id)
    with pytest.raises(CredentialRevoked):
        await world.store.create_client_secret(secret_of(key))
    assert await world.store.find_credential(OTHER_HASH) is None


async def test_a_client_secret_is_for_a_conversation_of_its_user_only(world: World) -> None:
    start, key = await world.begin("eve"), await key_of(world)
    for conversation_id in (start.conversation_id, uuid4()):
        with pytest.raises(InvalidRow):
            await world.store.create_client_secret(secret_of(key, conversation_id=conversation_id))


@pytest.mark.parametrize("revoked", ["the key", "the secret"])
async def test_revoking_closes_the_sessions_that_it_began_and_no_others(world: World, revoked: str) -> None:
    key = await key_of(world)
    secret = secret_of(key)
    await world.store.create_client_secret(secret)
    by_key = await world.begin(credential_id=key.credential_id)
    by_secret = await world.begin(credential_id=secret.secret_id)
    by_nothing = await world.begin()
    async with world.store.open_lease_connection(world.instance_id) as guard:
        await world.revoke(key.credential_id if revoked == "the key" else secret.secret_id)
        with trio.fail_after(WAIT_SECONDS):
            await guard.news()
    ended = await world.session(by_secret.session_id)
    assert (ended.is_active, ended.end_reason, ended.closed_by) == (False, "revoked", None)
    assert (await world.session(by_key.session_id)).is_active == (revoked == "the secret")
    assert (await world.session(by_nothing.session_id)).is_active


async def test_nothing_begins_with_what_was_revoked_in_between(world: World) -> None:
    key = await key_of(world)
    await world.revoke(key.credential_id)
    for credential_id in (key.credential_id, uuid4()):
        with pytest.raises(CredentialRevoked):
            await world.begin(credential_id=credential_id)
    assert await world.session_count() == 0
    await world.begin()


@pytest.mark.parametrize(("created", "valid"), [("30 seconds", True), ("1 hour", False)])
async def test_a_clock_that_is_set_back_does_not_prolong_a_client_secret(
    created: str, valid: bool, postgres_store: PostgresStore
) -> None:
    await postgres_store.select(
        "INSERT INTO client_secrets (user_id, secret_hash, created_at, expires_at)"
        " VALUES ('ada', $1, now() + $2::text::interval, now() + $2::text::interval + interval '1 minute')",
        HASH,
        created,
    )
    assert (await postgres_store.find_credential(HASH) is not None) is valid


async def test_a_client_secret_says_how_long_it_is_good(world: World) -> None:
    await world.store.create_client_secret(secret_of(await key_of(world), seconds=90))
    found = await world.store.find_credential(OTHER_HASH)
    assert found is not None
    assert found.seconds_left == pytest.approx(90.0, abs=5.0)
    key = await world.store.find_credential(HASH)
    assert key is not None
    assert key.seconds_left is None


COOKIE, OTHER_COOKIE = b"c" * 32, b"d" * 32


async def trade(world: World, cookie: bytes = COOKIE) -> SignIn | None:
    return await world.store.trade_secret(OTHER_HASH, uuid4(), cookie, link_seconds=90.0)


async def test_a_link_is_traded_once_for_a_cookie_of_its_own_time(world: World) -> None:
    key = await key_of(world)
    await world.store.create_client_secret(secret_of(key, form="link", seconds=5))
    signed_in = await trade(world)
    assert signed_in is not None
    assert (signed_in.user_id, round(signed_in.seconds)) == ("ada", 90)
    assert await trade(world, OTHER_COOKIE) is None
    found = await world.store.find_credential(COOKIE)
    assert found is not None
    assert (found.user_id, found.form, found.key_id) == ("ada", "cookie", key.key_id)
    assert await world.store.find_credential(OTHER_HASH) is None
    assert await world.store.find_credential(OTHER_COOKIE) is None
    assert await world.store.sign_out(COOKIE)
    assert not await world.store.sign_out(COOKIE)
    assert await world.store.find_credential(COOKIE) is None


@pytest.mark.parametrize("form", ["link", "bearer"])
async def test_a_cookie_goes_with_what_it_was_traded_for(world: World, form: Form) -> None:
    secret = secret_of(await key_of(world), form=form)
    await world.store.create_client_secret(secret)
    assert await trade(world) is not None
    await world.revoke(secret.secret_id)
    assert await world.store.find_credential(COOKIE) is None


async def test_a_client_secret_is_traded_for_a_cookie_that_is_valid_no_longer(world: World) -> None:
    secret = secret_of(await key_of(world), seconds=30)
    await world.store.create_client_secret(secret)
    for cookie in (COOKIE, OTHER_COOKIE):
        signed_in = await trade(world, cookie)
        assert signed_in is not None
        assert 25 < signed_in.seconds <= 30
    assert not await world.store.sign_out(OTHER_HASH)
    assert await world.store.find_credential(OTHER_HASH) is not None


@pytest.mark.parametrize("what", ["a secret without a key", "a key", "a cookie", "a revoked key", "an expired link"])
async def test_nothing_else_is_traded(world: World, what: str) -> None:
    key = await key_of(world)
    made = {
        "a secret without a key": secret_of(None),
        "a cookie": secret_of(key, form="cookie"),
        "a revoked key": secret_of(key, form="link"),
        "an expired link": secret_of(key, form="link", seconds=0),
    }
    if what in made:
        await world.store.create_client_secret(made[what])
    if what == "a revoked key":
        await world.revoke(key.credential_id)
    sought = HASH if what == "a key" else OTHER_HASH
    assert await world.store.trade_secret(sought, uuid4(), COOKIE, link_seconds=90.0) is None
    assert await world.store.find_credential(COOKIE) is None


async def test_a_cookie_goes_with_its_key_and_its_sessions_with_it(world: World) -> None:
    key = await key_of(world)
    await world.store.create_client_secret(secret_of(key, form="link"))
    await trade(world)
    cookie = await world.store.find_credential(COOKIE)
    assert cookie is not None
    start = await world.begin(credential_id=cookie.credential_id)
    await world.revoke(key.credential_id)
    assert await world.store.find_credential(COOKIE) is None
    assert not (await world.session(start.session_id)).is_active
