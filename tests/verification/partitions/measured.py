"""What `scripts/partitions` and `scripts/bench` have measured, for docs/scaling.md: on two cores that others used."""

from __future__ import annotations

from .sizing import Figures

MEASURED = Figures(
    server_turn_us=250,
    server_session_us=930,
    database_turn_us=210,
    database_session_us=440,
    wal_turn_bytes=14_900,
    wal_session_bytes=38_400,
    message_bytes=690,
    session_bytes=620 + 2200,  # its rows, and what is indexed of it
    idle_session_bytes=17.9 * 1024,
)
