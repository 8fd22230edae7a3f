"""Servers are replaced one by one under clients that chat: nothing is lost, nobody is refused, everybody goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.deployed_proxies import require
from ..support.rolling import Way, play

if TYPE_CHECKING:
    from ..support.deployed_proxies import Proxy

pytestmark = pytest.mark.alone

FEW = 20  # `scripts/rolling` has 200


def check(way: Way, database_url: str, clients: int) -> None:
    outcome = play(way, database_url, clients)
    assert (outcome.lost, outcome.refused, outcome.active_rows) == (0, [], 0)
    assert set(outcome.exit_codes) == {0}
    assert outcome.clients_resumed == clients
    assert outcome.acknowledged >= clients
    assert outcome.probes > 0


def test_workers_are_replaced_by_a_signal(database_url: str) -> None:
    check("workers", database_url, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_servers_behind_a_proxy_are_restarted_one_after_the_other(proxy: Proxy, database_url: str) -> None:
    require(proxy)
    check(proxy, database_url, FEW)
