"""Delivers what the outbox holds. Servers share the work: a claim keeps a delivery from the others while it is tried.

At least once: a server that dies between an endpoint's answer and the outcome's commit leaves a claim that runs out,
and the next try carries the same id.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import httpx2
import structlog
import trio

from ..logs.trouble import Trouble
from ..metrics import Metrics
from ..store.errors import StoreError
from ..store.reports import Rows
from ..store.webhooks.outbox import (
    BACKOFF_SECONDS_MAX,
    BACKOFF_SECONDS_MIN,
    JITTER,
    TRIES_MAX,
    ClaimedDelivery,
    DeliveryBacklog,
    claim_deliveries,
    delete_old_deliveries,
    read_backlog,
    release_deliveries,
    settle_delivery,
)
from .sending import ENDPOINT_SENDS_MAX, TryOutcome, open_client, send
from .urls import host_of
from .watch import EndpointWatch

POLL_SECONDS = 1.0  # between looks for what is due, where nothing was
GATHER_SECONDS = 0.02  # after a try, before more are claimed: others end meanwhile
TEND_SECONDS = 10.0  # between countings of the backlog, each with a deletion of what is old
BROKEN_SECONDS = 30.0  # before all is begun anew
RELEASE_SECONDS = 1.0  # for giving claims back, shielded
BACKOFF_FACTOR = 3

_log = structlog.get_logger(__name__)


def backoff_seconds(attempts: int) -> float:
    """Between the end of this try and the next one."""
    seconds: float = BACKOFF_SECONDS_MIN * BACKOFF_FACTOR ** min(attempts - 1, TRIES_MAX)
    return min(seconds, BACKOFF_SECONDS_MAX) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


class Deliverer:
    """Claims deliveries and sends them, a few at once for each endpoint; for one that fails, one at a time."""

    def __init__(self, store: Rows, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._claims: dict[int, ClaimedDelivery] = {}  # not settled yet
        self._failing: set[UUID] = set()
        self._settled = trio.Event()  # since the last claim
        self._trouble = Trouble()

    async def run(self) -> None:
        """Delivers until cancelled, and then gives back what it has claimed."""
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._tend)
                tasks.start_soon(self._deliver_all)
        finally:
            if self._claims:
                with trio.move_on_after(RELEASE_SECONDS, shield=True):
                    await self._release([*self._claims.values()])
            self._show(DeliveryBacklog(0, 0, None))  # without endpoints, nobody would count again

    async def _deliver_all(self) -> None:
        """A client that cannot be made, as for a proxy that nobody understands, costs no session."""
        while True:
            try:
                await self._deliver_with_client()
            except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
                _log.error("webhooks_failed", error=repr(error))
            self._claims.clear()  # they run out
            await trio.sleep(BROKEN_SECONDS)

    async def _deliver_with_client(self) -> None:
        claims = await self._claim()
        while not claims:  # a server need not make a client for what others deliver
            await self._wait()
            claims = await self._claim()
        async with open_client() as client, trio.open_nursery() as sends:
            while True:
                for claim in claims:
                    sends.start_soon(self._deliver, client, claim)
                await self._wait()
                claims = await self._claim()

    async def _wait(self) -> None:
        """Until it is time to claim again."""
        with trio.move_on_after(POLL_SECONDS):
            await self._settled.wait()
            await trio.sleep(GATHER_SECONDS)

    async def _claim(self) -> Sequence[ClaimedDelivery]:
        self._settled = trio.Event()  # first: what is settled during the claim leaves room, too
        busy = Counter(claim.endpoint_id for claim in self._claims.values())
        most = {each: 1 if each in self._failing else ENDPOINT_SENDS_MAX for each in {*busy, *self._failing}}
        room_of = {each: max(sends - busy[each], 0) for each, sends in most.items()}
        try:
            claims = await claim_deliveries(self._store, ENDPOINT_SENDS_MAX, room_of)
        except StoreError as error:
            self._note_trouble(error)
            return ()
        self._trouble.over()
        self._claims |= {claim.delivery_id: claim for claim in claims}
        return claims

    async def _deliver(self, client: httpx2.AsyncClient, claim: ClaimedDelivery) -> None:
        outcome = await send(client, claim)
        accepted = outcome.error is None
        self._note_endpoint(claim, outcome)
        try:
            state = await settle_delivery(
                self._store,
                claim,
                accepted=accepted,
                status=outcome.status,
                error=outcome.error,
                retry_after=backoff_seconds(claim.attempts),
            )
        except StoreError as error:  # its claim runs out, and it is sent again
            self._note_trouble(error)
        else:
            self._count(claim, "delivered" if accepted else "failed" if state == "failed" else "retried", outcome)
        del self._claims[claim.delivery_id]
        self._settled.set()

    def _count(self, claim: ClaimedDelivery, result: str, outcome: TryOutcome) -> None:
        self._metrics.webhook_tries.count(result)
        if result == "failed":
            _log.error(
                "webhook_not_delivered",
                delivery=claim.delivery_id,
                event_type=claim.event,
                host=host_of(claim.url),
                tries=claim.attempts,
                error=outcome.error,
            )

    def _note_endpoint(self, claim: ClaimedDelivery, outcome: TryOutcome) -> None:
        """Logs when an endpoint begins to fail and when it is back, and not each try."""
        about = {"endpoint_id": str(claim.endpoint_id), "host": host_of(claim.url)}
        if outcome.error is None:
            if claim.endpoint_id in self._failing:
                _log.info("webhook_endpoint_back", **about)
            self._failing.discard(claim.endpoint_id)
        elif claim.endpoint_id not in self._failing:
            self._failing.add(claim.endpoint_id)
            _log.warning("webhook_endpoint_failing", **about, error=outcome.error)

    def _note_trouble(self, error: StoreError) -> None:
        if self._trouble.is_new(error):
            _log.warning("webhooks_without_database", error=str(error))

    async def _tend(self) -> None:
        while True:
            try:
                await delete_old_deliveries(self._store)
                self._show(await read_backlog(self._store))
            except StoreError as error:
                self._note_trouble(error)
            await trio.sleep(TEND_SECONDS)

    def _show(self, backlog: DeliveryBacklog) -> None:
        self._metrics.webhooks_pending.set(backlog.pending)
        self._metrics.webhooks_failed.set(backlog.failed)
        self._metrics.webhook_oldest_seconds.set(backlog.oldest_seconds or 0.0)

    async def _release(self, claims: Sequence[ClaimedDelivery]) -> None:
        try:
            await release_deliveries(self._store, claims)
        except StoreError as error:  # they are due again when the claims run out
            self._note_trouble(error)


@asynccontextmanager
async def open_deliverer(store: Rows, metrics: Metrics) -> AsyncIterator[EndpointWatch]:
    """Delivers for as long as the block lasts: what a shutdown ends is still sent, where there is time.

    Yields who is to be told of changed endpoints.
    """
    watch = EndpointWatch(store)
    async with trio.open_nursery() as deliveries:
        deliveries.start_soon(_deliver_where_wanted, store, metrics, watch)
        yield watch
        deliveries.cancel_scope.cancel()


async def _deliver_where_wanted(store: Rows, metrics: Metrics, watch: EndpointWatch) -> None:
    while True:
        await watch.until(there=True)
        async with trio.open_nursery() as deliveries:
            deliveries.start_soon(Deliverer(store, metrics).run)
            await watch.until(there=False)
            deliveries.cancel_scope.cancel()
