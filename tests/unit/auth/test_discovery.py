"""What is remembered of an identity provider, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from lastcall.auth.provider.discovery import FRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, Discovery
from lastcall.auth.provider.documents import Documents
from lastcall.auth.provider.failures import SignInFailed
from trio.testing import MockClock

ISSUER = "https://id.example/tenant/"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://id.example/authorize",
    "token_endpoint": "https://id.example/token",
    "jwks_uri": "https://id.example/keys",
}


class OneDocument(Documents):
    """The provider's; away: it does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.asked: list[str] = []

    async def get(self, url: str, token: str | None = None) -> Any:
        self.asked.append(url)
        if self.away:
            raise SignInFailed("away", "as the test wants it")
        return DOCUMENT


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


async def test_it_is_asked_when_somebody_signs_in_and_then_once_an_hour(clock: MockClock) -> None:
    documents = OneDocument()
    discovery = Discovery(ISSUER, documents)
    assert documents.asked == []
    known = await discovery.facts()
    clock.jump(FRESH_SECONDS - 1)
    assert await discovery.facts() is known
    assert documents.asked == ["https://id.example/tenant/.well-known/openid-configuration"]
    clock.jump(2)
    again = await discovery.facts()
    assert again.keys is known.keys, "fetched keys are kept"
    assert len(documents.asked) == 2


async def test_while_it_is_away_what_is_known_holds_for_a_day(clock: MockClock) -> None:
    documents = OneDocument()
    discovery = Discovery(ISSUER, documents)
    known = await discovery.facts()
    documents.away = True
    clock.jump(STALE_SECONDS - 1)
    assert await discovery.facts() is known
    clock.jump(2)
    with pytest.raises(SignInFailed):
        await discovery.facts()


async def test_a_provider_that_is_away_is_not_asked_by_everybody(clock: MockClock) -> None:
    documents = OneDocument()
    documents.away = True
    discovery = Discovery(ISSUER, documents)
    for _ in range(5):
        with pytest.raises(SignInFailed) as failed:
            await discovery.facts()
        assert failed.value.code == "away"
    assert len(documents.asked) == 1
    documents.away = False
    clock.jump(RETRY_SECONDS)
    assert (await discovery.facts()).token_endpoint == DOCUMENT["token_endpoint"]
