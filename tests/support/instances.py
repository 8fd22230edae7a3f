"""Instances as tests register them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from lastcall.store.records import Instance


def instance(instance_id: UUID, **changes: Any) -> Instance:
    """An instance of this id; `changes` are its other fields."""
    known: dict[str, Any] = {"hostname": "host", "pid": 1, "version": "0", "lease_seconds": 10.0}
    return Instance(instance_id=instance_id, **{**known, **changes})
