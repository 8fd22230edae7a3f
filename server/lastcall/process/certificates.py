"""The TLS certificate of a running server, read again on demand."""

from __future__ import annotations

import structlog
import trio

from ..config import BadSettings
from ..shutdown import Signals
from ..transport.tls import ServerTls

_log = structlog.get_logger(__name__)


async def reload_certificates(tls: ServerTls, signals: Signals) -> None:
    """Reads the certificate again whenever a signal asks for it. Files that cannot be used change nothing."""
    while True:
        await signals.reload.wait()
        signals.reload = trio.Event()
        try:
            await trio.to_thread.run_sync(tls.reload)
        except BadSettings as error:
            _log.error("certificate_not_reloaded", error=str(error))
        else:
            _log.info("certificate_reloaded")
