"""Settings: every limit and timeout of the server, with its unit in its name. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BadSettings(Exception):
    """Settings that cannot be served by; the message is one line for the user, with the fix in it."""


def setting(default: Any, help: str, *, flag: bool = True) -> Any:
    """A field of `Settings`: its default, and its sentence in `lastcall serve --help` when it has a flag."""
    return field(default=default, metadata={"help": help, "flag": flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `lastcall serve` can be told.

    Each field with a flag becomes `--like-this` and the environment variable `LASTCALL_LIKE_THIS`; the rest are
    constants of the design, named here so that every bound is found in one place.
    """

    host: str = setting("127.0.0.1", "Address to listen on; others than loopback need API keys or tokens.")
    port: int = setting(8000, "TCP port; 0 picks a free one.")
    database_url: str | None = setting(None, "PostgreSQL 14+ to use; without it, an embedded one in --data-dir.")
    data_dir: Path = setting(Path(".lastcall"), "Where the embedded PostgreSQL keeps its data.")
    agent: str | None = setting(
        None,
        "Who answers: local, openai, echo or module:factory; default local where its model is installed, else echo.",
    )
    agent_url: str | None = setting(None, "Base URL of an OpenAI-compatible endpoint, for --agent openai.")
    model: str | None = setting(None, "Model to ask that endpoint for, for --agent openai.")
    instructions: str = setting(
        "You are a friendly assistant. Answer briefly and plainly.", "What the agent is told before every conversation."
    )
    tls_cert: Path | None = setting(None, "PEM file of the TLS certificate and its chain; with it, only TLS is spoken.")
    tls_key: Path | None = setting(None, "PEM file of the certificate's private key.")
    allow_origin: tuple[str, ...] = setting(
        (), "Origin of foreign pages that may connect, like https://chat.example; may be repeated."
    )
    jwt_secret_file: Path | None = setting(None, "File with the secret that your identity provider signs tokens with.")
    jwt_jwks: str | None = setting(None, "File or https:// URL of your identity provider's public keys (JWKS).")
    jwt_audience: str | None = setting(None, "Audience that a token must be meant for; needed with --jwt-jwks.")
    jwt_issuer: str | None = setting(None, "Issuer that a token must come from.")
    ping_interval: float = setting(20.0, "Seconds between keepalive pings.")
    ping_timeout: float = setting(20.0, "Seconds to wait for an answer to a ping before the client counts as gone.")
    lease_seconds: float = setting(
        10.0, "Seconds without a sign of life after which other servers close this one's sessions."
    )
    drain_seconds: float = setting(10.0, "Seconds a shutdown may take in all, running answers and memory included.")
    connections_max: int = setting(10_000, "Connections served at once; further ones are refused.")
    memory_mib_max: int | None = setting(
        None, "New sessions are refused while the server holds more memory; default 80 % of what there is, in MiB."
    )
    address_connections_max: int | None = setting(
        None, "Connections of one address at once; default 256, and no limit for this machine's own addresses."
    )
    address_connections_per_second: float | None = setting(
        None, "Connections one address may open, ten seconds' worth at once; default 20, and for this machine no limit."
    )
    address_requests_per_second: float | None = setting(
        None, "HTTP requests of one address, ten seconds' worth at once; default 50, and for this machine no limit."
    )
    key_connections_max: int | None = setting(
        None, "Sessions of one key at once, its client secrets' included; default none, and 256 of a token's user."
    )
    key_connections_per_second: float | None = setting(
        None, "Sessions one key may open, ten seconds' worth at once; default no limit, and 20 of a token's user."
    )
    events_per_second: float = setting(
        500.0, "Events of one client, two seconds' worth at once; one of 16 KiB counts as two, and so on."
    )
    session_seconds: float = setting(86_400.0, "How long a session may last; then the client may connect again.")
    idle_seconds: float | None = setting(
        None, "A session without an event of the client's for so long is closed; default: none is."
    )
    context_chars_max: int = setting(
        200_000, "Characters of a conversation that the agent is given: the newest items, and those of role system."
    )
    conversation_chars_max: int = setting(4_194_304, "Characters of a conversation that one session takes.")
    message_bytes_max: int = setting(1_048_576, "Largest message a client may send, in bytes.")
    json_values_max: int = setting(20_000, "JSON values in one event; more would keep everybody waiting.")
    json_depth_max: int = setting(64, "How deep the JSON of an event may be nested.")
    http_connections_max: int = setting(256, "Connections that speak plain HTTP, of everybody together.")
    address_http_connections_max: int | None = setting(
        None, "The same of one address; default 32, and no limit for this machine's own addresses."
    )
    json_logs: bool = setting(False, "Write logs as JSON lines, for machines.")
    log_level: str | None = setting(None, "Least level to log; default warning, or info with --json-logs.")

    handshake_seconds: float = setting(10.0, "From accept to a finished HTTP or WebSocket handshake.")
    head_bytes_max: int = setting(16_384, "Largest HTTP request head.", flag=False)
    inbox_events_max: int = setting(256, "Events of one client waiting to be handled.")
    inbox_bytes_max: int = setting(2_097_152, "Bytes of one client's waiting events, but for a single one.")
    outbox_bytes_high: int = setting(262_144, "Unsent bytes at which producers wait for the client.", flag=False)
    outbox_bytes_max: int = setting(8_388_608, "Unsent bytes at which a slow reader is let go.")
    send_seconds: float = setting(10.0, "A client that takes no byte for so long is let go.")
    begin_seconds: float = setting(5.0, "From accept to the session's committed row.", flag=False)
    end_seconds: float = setting(5.0, "How long one session's exit waits for its end to be committed.", flag=False)
    close_seconds: float = setting(1.0, "How long one session's exit waits for the closing handshake.", flag=False)
    append_seconds: float = setting(5.0, "From an item's arrival to its commit, retries included.", flag=False)
    history_items_max: int = setting(256, "Items of a resumed conversation that answers take into account.", flag=False)
    items_max: int = setting(10_000, "Items one session holds in its conversation.")
    recall_memories_max: int = setting(50, "Memories of a user that go into the instructions.", flag=False)
    reply_seconds: float = setting(300.0, "One response of the agent, from first to last word.", flag=False)
    reply_chars_max: int = setting(262_144, "One response of the agent, in characters.", flag=False)
    memory_seconds: float = setting(
        60.0, "One session's memory finalization; its claim lasts a little longer.", flag=False
    )
    memory_workers: int = setting(4, "Sessions whose memory is finalized at once.", flag=False)
    memory_attempts_max: int = setting(5, "Tries at one session's memory before it counts as failed.", flag=False)
    memory_sweep_seconds: float = setting(5.0, "Between looks for pending memory that nobody announced.", flag=False)
    heartbeat_seconds: float = setting(0.5, "Between renewals of this instance's lease.", flag=False)
    reap_seconds: float = setting(0.5, "Between looks for dead instances.", flag=False)
