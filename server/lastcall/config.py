"""Settings: every limit and timeout of the server, with the unit in its name. Imports nothing else of lastcall."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BadSettings(Exception):
    """Invalid settings; the message is one line for the user that names the fix."""


ENVIRONMENT_PREFIX = "LASTCALL_"  # of the variables that are ours


def setting(default: Any, help: str, *, flag: bool = True) -> Any:
    """A field of `Settings`.

    Args:
        default: Its value if nobody sets it.
        help: One sentence with the unit, shown by `lastcall serve --help`.
        flag: Whether it can be set at all; otherwise it is a constant.
    """
    return field(default=default, metadata={"help": help, "flag": flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one server, immutable.

    `cli/options.py` turns each field with a flag into an option `--like-this`, an environment variable
    `LASTCALL_LIKE_THIS` and a key `like_this` of the configuration file, and checks its range. Fields without a flag
    are constants, kept here so that every bound is in one place.

    The end of a name is its unit: `_seconds`, `_bytes_max`, `_chars_max` (Unicode code points), `_mib_max` (MiB) and
    `_per_second`; `ping_interval`, `ping_timeout` and `drain_delay` are seconds too; any other `_max` is a count. None
    means the default that the help text names.
    """

    host: str = setting("127.0.0.1", "Address to listen on; any but a loopback address requires API keys or tokens.")
    port: int = setting(8000, "TCP port; 0 picks a free one.")
    database_url: str | None = setting(
        None,
        "URL of a PostgreSQL 14+ database, or key=value pairs, as psql takes them; the PG… variables complete it;"
        " default: an embedded one in --data-dir.",
    )
    data_dir: Path = setting(Path(".lastcall"), "Directory for the data of the embedded PostgreSQL.")
    agent: str | None = setting(
        None,
        "The agent: local, openai, echo or module:factory; default local if its model is installed, else echo.",
    )
    agent_url: str | None = setting(None, "Base URL of an OpenAI-compatible endpoint, for --agent openai.")
    model: str | None = setting(None, "Name of the model at that endpoint, for --agent openai.")
    instructions: str = setting(
        "You are a friendly assistant. Answer briefly and plainly.", "System instructions for the agent."
    )
    tls_cert: Path | None = setting(
        None, "PEM file with the TLS certificate and its chain; with it, only TLS connections are accepted."
    )
    tls_key: Path | None = setting(None, "PEM file with the certificate's private key, not encrypted.")
    allow_origin: tuple[str, ...] = setting(
        (), "Origin of other sites whose pages may connect, such as https://chat.example; may be repeated."
    )
    trusted_proxy: tuple[str, ...] = setting(
        (),
        "Address or network of a proxy in front, such as 10.0.0.0/8, whose Forwarded and X-Forwarded-… headers are"
        " believed; may be repeated.",
    )
    jwt_secret_file: Path | None = setting(None, "File with the secret with which your identity provider signs tokens.")
    jwt_jwks: str | None = setting(None, "File or https:// URL of your identity provider's public keys (JWKS).")
    jwt_audience: str | None = setting(None, "Audience required in a token; must be given with --jwt-jwks.")
    jwt_issuer: str | None = setting(None, "Issuer required in a token.")
    jwt_lifetime_seconds: float = setting(
        86_400.0, "Seconds for which a token may be valid, from its issue to its expiry; longer ones are refused."
    )
    oidc_issuer: str | None = setting(
        None, "Issuer of the OpenID Connect provider with which people sign in on the page, such as https://id.example."
    )
    oidc_client_id: str | None = setting(
        None, "Id of this server at that provider; a client secret comes from LASTCALL_OIDC_CLIENT_SECRET only."
    )
    oidc_scopes: str = setting("openid email", "Scopes that are asked for, separated by spaces; openid is one of them.")
    oidc_user_claim: str = setting(
        "sub", "Claim that is the user's id: of the ID token, or else of the user info; email must be a verified one."
    )
    oidc_email_domain: tuple[str, ...] = setting(
        (), "Domain of verified e-mail addresses that may sign in; default all users of the provider; may be repeated."
    )
    sign_in_seconds: float = setting(
        604_800.0, "Seconds for which a browser stays signed in, by a link or at the provider."
    )
    embed_origin: tuple[str, ...] = setting(
        (), "Origin of other sites that may show the page /embed in a frame; default none; may be repeated."
    )
    end_with_credential: bool = setting(
        False, "End a session when the token or client secret that it was begun with expires."
    )
    ping_interval: float = setting(20.0, "Seconds between keepalive pings.")
    ping_timeout: float = setting(20.0, "Seconds to wait for a pong before the client counts as gone.")
    lease_seconds: float = setting(
        10.0, "Seconds without a heartbeat after which other servers close this server's sessions."
    )
    drain_seconds: float = setting(10.0, "Seconds a shutdown may take in all, including running responses and memory.")
    drain_delay: float = setting(
        0.0, "Seconds between a signal to end and the shutdown: /readyz says draining, and everything is still served."
    )
    workers: int = setting(1, "Server processes on the port; SIGHUP replaces them one by one. Limits are for each.")
    admin_port: int | None = setting(
        None, "Second port with /healthz, /readyz and /metrics only, without keys; of further workers the next ones."
    )
    admin_host: str = setting("127.0.0.1", "Address to listen on with --admin-port; keep strangers from it.")
    connections_max: int = setting(10_000, "Concurrent connections.")
    memory_mib_max: int | None = setting(
        None, "MiB of memory that a server process may use; default 80 % of what is available, shared by --workers."
    )
    address_connections_max: int | None = setting(
        None, "Concurrent connections per address; default 256, no limit for this machine's own addresses."
    )
    address_connections_per_second: float | None = setting(
        None,
        "New connections per second and address, bursts of 10 seconds' worth; default 20, no limit for this machine.",
    )
    address_requests_per_second: float | None = setting(
        None,
        "HTTP requests per second and address, bursts of 10 seconds' worth; default 50, no limit for this machine.",
    )
    key_connections_max: int | None = setting(
        None, "Concurrent sessions per key, with its client secrets; default no limit, 256 per user of a token."
    )
    key_connections_per_second: float | None = setting(
        None,
        "New sessions per second and key, bursts of 10 seconds' worth; default no limit, 20 per user of a token.",
    )
    events_per_second: float = setting(
        500.0, "Events per second and client, bursts of 2 seconds' worth; each 16 KiB of an event count as one more."
    )
    session_seconds: float = setting(86_400.0, "Seconds a session may last; the client may connect again.")
    idle_seconds: float | None = setting(None, "Seconds without an event from the client; default no limit.")
    context_chars_max: int = setting(200_000, "Characters of a conversation passed to the agent.")
    conversation_chars_max: int = setting(4_194_304, "Characters that one session may hold of its conversation.")
    message_bytes_max: int = setting(1_048_576, "Largest message from a client, in bytes.")
    json_values_max: int = setting(20_000, "JSON values in one event.")
    json_depth_max: int = setting(64, "Nesting depth of the JSON of an event.")
    http_connections_max: int = setting(256, "Concurrent connections that use plain HTTP, in all.")
    address_http_connections_max: int | None = setting(
        None, "Concurrent plain HTTP connections per address; default 32, no limit for this machine's own addresses."
    )
    json_logs: bool = setting(False, "Write logs as JSON lines on stdout.")
    access_log: bool = setting(False, "Log each HTTP request and WebSocket handshake, without its query.")
    traces: bool = setting(
        False, "Export OpenTelemetry traces of sessions and turns, as the OTEL_… variables say; needs lastcall[otel]."
    )
    log_level: str | None = setting(
        None, "Lowest level to log; default warning, or info with --json-logs or --access-log."
    )

    handshake_seconds: float = setting(10.0, "Seconds from accept to the end of the HTTP or WebSocket handshake.")
    head_bytes_max: int = setting(16_384, "Largest HTTP request head, in bytes.", flag=False)
    inbox_events_max: int = setting(256, "Received events of one client that wait to be handled.")
    inbox_bytes_max: int = setting(
        2_097_152, "Bytes of the received events of one client that wait; a single event may exceed it."
    )
    outbox_bytes_high: int = setting(262_144, "Unsent bytes at which senders wait for the client.", flag=False)
    outbox_bytes_max: int = setting(8_388_608, "Unsent bytes of one client.")
    send_seconds: float = setting(10.0, "Seconds without the client accepting data.")
    begin_seconds: float = setting(5.0, "Seconds from accept to the session's committed row.", flag=False)
    end_seconds: float = setting(5.0, "Seconds for one session's end to be committed.", flag=False)
    close_seconds: float = setting(1.0, "Seconds for one session's closing handshake.", flag=False)
    finalize_seconds: float = setting(1.0, "Seconds that one session's exit waits for its memory.", flag=False)
    append_seconds: float = setting(5.0, "Seconds from an item's arrival to its commit, with retries.", flag=False)
    history_items_max: int = setting(256, "Items of a resumed conversation that the agent is given.", flag=False)
    items_max: int = setting(10_000, "Items that one session may hold of its conversation.")
    recall_memories_max: int = setting(50, "Memories of a user that are added to the instructions.", flag=False)
    reply_seconds: float = setting(300.0, "Seconds one response of the agent may take.", flag=False)
    reply_chars_max: int = setting(262_144, "Characters of one response of the agent.", flag=False)
    memory_seconds: float = setting(
        60.0, "Seconds to finalize one session's memory; its claim lasts a little longer.", flag=False
    )
    memory_cpu_seconds: float = setting(
        2.0, "Seconds of CPU time to extract one session's memories by rules.", flag=False
    )
    meaning: bool | None = setting(
        None, "Find turns of the past by meaning, too; default where lastcall[meaning] is installed."
    )
    memory_days: float | None = setting(None, "Days that a memory is kept after it was said; default: forever.")
    transcript_days: float | None = setting(
        None,
        "Days that what was said is kept, from the start of its session; default: forever. What is remembered of it has"
        " --memory-days.",
    )
    session_days: float | None = setting(
        None, "Days that a session is kept, from its start, and its transcript no longer than it; default: forever."
    )
    audit_days: float | None = setting(None, "Days that a line of the audit log is kept; default: forever.")
    retention_seconds: float = setting(600.0, "Seconds between searches for what is kept too long.", flag=False)
    memory_workers: int = setting(4, "Sessions whose memory is finalized concurrently.", flag=False)
    memory_attempts_max: int = setting(5, "Attempts at one session's memory before it counts as failed.", flag=False)
    memory_sweep_seconds: float = setting(
        5.0, "Seconds between searches for pending memory that was not announced.", flag=False
    )
    heartbeat_seconds: float = setting(0.5, "Seconds between renewals of this instance's lease.", flag=False)
    reap_seconds: float = setting(0.25, "Seconds between passes of the reaper.", flag=False)
    # Above 5: a link that is cut for less than that costs no session, and its owner needs a moment to be back.
    gone_seconds: float = setting(
        5.3, "Seconds that a server of another host is seen without any connection until it is dead.", flag=False
    )
