"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from ..access import overseer_even_in_an_outage, services_of
from ..answers import Health, Readiness, answer


async def health(_request: Request) -> Response:
    """200 for as long as the process serves; whether it should get traffic is `/readyz`."""
    return answer(Health())


async def readiness(request: Request) -> Response:
    """Whether the server accepts sessions."""
    reason = await services_of(request).ready()
    if reason is None:
        return answer(Readiness("ready"))
    return answer(Readiness("unready", reason), status=503)


async def metrics(request: Request) -> Response:
    """The Prometheus text format, or OpenMetrics for a client that asks for it. For operators, once keys exist."""
    await overseer_even_in_an_outage(request)
    return await all_metrics(request)


async def all_metrics(request: Request) -> Response:
    """The same, for whoever asks."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(services_of(request).metrics.registry), headers={"content-type": content_type})
