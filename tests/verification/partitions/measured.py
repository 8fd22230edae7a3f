"""What `scripts/partitions` and `scripts/bench` have measured, for docs/scaling.md: on two cores that others used."""

from __future__ import annotations

from .sizing import Figures

MEASURED = Figures(
    server_turn_us=260,
    server_session_us=980,
    database_turn_us=120,
    database_session_us=650,
    wal_turn_bytes=3800,
    wal_session_bytes=15_000,
    message_bytes=690,
    session_bytes=620 + 700,  # its rows, and what is indexed of it
    idle_session_bytes=17.9 * 1024,
)
