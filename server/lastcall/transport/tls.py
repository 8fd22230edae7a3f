"""TLS: the server's context, and a stream whose two directions close independently."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio

from ..config import BadSettings, Settings
from ..runtime.check import Check, fail, ok, warn

CERTIFICATE = "certificate"
EXPIRY_DAYS = 14  # before it, a certificate should have been renewed


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Returns the context for TLS 1.2 and up, with Python's defaults, or None if the settings name no certificate.

    Raises:
        BadSettings: The certificate or the key cannot be used.
    """
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise BadSettings("--tls-cert and --tls-key go together; pass both or neither.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, key)
    return context


def check_certificate(settings: Settings) -> Check | None:
    """Whether the certificate and its key can be used, and for how long. None: TLS is off. Blocks on files."""
    try:
        if tls_context(settings) is None:
            return None
    except BadSettings as error:
        mend = (
            "pass the PEM files of one certificate and of the private key that it was made for, readable by the server"
        )
        return fail(CERTIFICATE, str(error).rstrip("."), mend)
    assert settings.tls_cert is not None
    from cryptography import x509  # slow to import

    file = settings.tls_cert
    certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]  # the server's own comes first
    now, first, last = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        found = f"{file} is not valid before {first:%Y-%m-%d %H:%M} UTC"
        return fail(CERTIFICATE, found, "set this host's clock, or pass a certificate that is valid now")
    if now > last:
        return fail(CERTIFICATE, f"{file} expired on {last:%Y-%m-%d %H:%M} UTC", RENEW)
    if last - now < timedelta(days=EXPIRY_DAYS):
        return warn(CERTIFICATE, f"{file} expires on {last:%Y-%m-%d %H:%M} UTC", RENEW)
    return ok(CERTIFICATE, f"{file} is valid until {last:%Y-%m-%d}, and the key is its own")


RENEW = "renew it, put the files in their place and send the server SIGHUP"


class ServerTls:
    """The server's context, which can be replaced. Connections keep the one that they began with.

    Args:
        settings: With a certificate and a key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reload()

    def reload(self) -> None:
        """Reads the certificate and the key again; blocks on files.

        Raises:
            BadSettings: They cannot be used; the context stays as it was.
        """
        context = tls_context(self._settings)
        assert context is not None
        self.context = context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def no_password() -> str:
        raise BadSettings(f"--tls-key: {key} is encrypted; use a key without a password.")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        raise BadSettings(f"cannot use --tls-cert {certificate} with --tls-key {key}: {reason}.") from error
    except OSError as error:
        unreadable = next((path for path in (certificate, key) if not _is_readable(path)), certificate)
        raise BadSettings(f"cannot read {unreadable}: {error.strerror or error} (--tls-cert, --tls-key).") from error


def _is_readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


class _HalfClosing(trio.abc.Stream):
    """The socket given to `trio.SSLStream`: closing it sends EOF and leaves the receiving side open."""

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self._transport = transport

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._transport.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._transport.send_eof()


class TlsStream(trio.abc.HalfCloseableStream):
    """A server's TLS connection that can be half-closed, as TCP can.

    `trio.SSLStream` sends close_notify only in `aclose`, which closes the socket too; unread input would then reset
    the connection, and the peer could lose our last bytes. Here `send_eof` sends close_notify and receiving goes on.
    """

    def __init__(self, transport: trio.abc.HalfCloseableStream, context: ssl.SSLContext) -> None:
        self._transport = transport
        self._tls = trio.SSLStream(_HalfClosing(transport), context, server_side=True)
        self._over = False

    @property
    def socket(self) -> Any:
        return self._transport.socket  # type: ignore[attr-defined]

    async def do_handshake(self) -> None:
        """Raises `trio.BrokenResourceError` if the handshake fails."""
        await self._tls.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tls.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receives decrypted bytes; after `send_eof`, raw ones, which the caller only discards."""
        return await (self._transport if self._over else self._tls).receive_some(max_bytes)

    async def send_eof(self) -> None:
        self._over = True
        await self._tls.aclose()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._transport)
