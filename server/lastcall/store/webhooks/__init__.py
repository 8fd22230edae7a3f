"""Webhooks in the database: endpoints, and the outbox of what is sent to them."""
