"""Webhooks: events of the outbox, signed and sent to endpoints of operators."""
