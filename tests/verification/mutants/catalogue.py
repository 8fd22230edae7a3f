"""All mutants, by what has to see them."""

from __future__ import annotations

from . import in_worlds, of_postgres, of_queries, of_schema, of_webhooks

MUTANTS = in_worlds.MUTANTS + of_queries.MUTANTS + of_schema.MUTANTS + of_postgres.MUTANTS + of_webhooks.MUTANTS
