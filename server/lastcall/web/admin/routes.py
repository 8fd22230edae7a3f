"""The routes of `/v1/admin/…`."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Route

from .audit import export_audit, list_audit
from .keys import create_key, list_keys, revoke_key
from .overview import chart, memory_work, retry_memory, truth
from .sessions import close_session, list_session_items, list_sessions, session_ending, show_session
from .usage import list_responses, usage, usage_chart
from .users import erase_user, export_user, forget_memory, list_memories, list_users
from .webhooks import add_webhook, list_deliveries, list_webhooks, remove_webhook, retry_deliveries, test_webhook

ADMIN_ROUTES: Sequence[Route] = (
    Route("/v1/admin/truth", truth),
    Route("/v1/admin/chart", chart),
    Route("/v1/admin/sessions", list_sessions),
    Route("/v1/admin/sessions/{session_id}", show_session),
    Route("/v1/admin/sessions/{session_id}/items", list_session_items),
    Route("/v1/admin/sessions/{session_id}/responses", list_responses),
    Route("/v1/admin/sessions/{session_id}/close", close_session, methods=["POST"]),
    Route("/v1/admin/usage", usage),
    Route("/v1/admin/usage/chart", usage_chart),
    Route("/v1/admin/memory", memory_work),
    Route("/v1/admin/memory/retry", retry_memory, methods=["POST"]),
    Route("/v1/admin/memories", list_memories),
    Route("/v1/admin/memories/{memory_id}", forget_memory, methods=["DELETE"]),
    Route("/v1/admin/keys", list_keys),
    Route("/v1/admin/keys", create_key, methods=["POST"]),
    Route("/v1/admin/keys/{key_id}", revoke_key, methods=["DELETE"]),
    Route("/v1/admin/users", list_users),
    Route("/v1/admin/users/export", export_user),
    Route("/v1/admin/users/erase", erase_user, methods=["POST"]),
    Route("/v1/admin/webhooks", list_webhooks),
    Route("/v1/admin/webhooks", add_webhook, methods=["POST"]),
    Route("/v1/admin/webhooks/deliveries", list_deliveries),
    Route("/v1/admin/webhooks/deliveries/retry", retry_deliveries, methods=["POST"]),
    Route("/v1/admin/webhooks/{webhook_id}", remove_webhook, methods=["DELETE"]),
    Route("/v1/admin/webhooks/{webhook_id}/test", test_webhook, methods=["POST"]),
    Route("/v1/admin/audit", list_audit),
    Route("/v1/admin/audit.csv", export_audit),
    Route("/v1/sessions/{session_id}", session_ending),
)
