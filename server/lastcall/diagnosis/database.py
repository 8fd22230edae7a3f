"""The checks of a database, and those that need one."""

from __future__ import annotations

from collections.abc import Sequence

from ..auth.authenticator import Authenticator, require_credentials_unless_loopback
from ..auth.origins import is_loopback
from ..config import BadSettings, Settings
from ..runtime.check import Check, CheckStatus, fail, ok, warn
from ..store.address import DatabaseAddress
from ..store.errors import StoreError
from ..store.postgres import Access, DatabaseUnusable, diagnose, open_store
from ..store.webhooks.endpoints import EndpointReport, list_endpoints
from ..webhooks.urls import host_of
from .meaning import is_wanted

CREDENTIALS = "credentials"
WEBHOOKS = "webhooks"


async def database_checks(settings: Settings, address: DatabaseAddress) -> list[Check]:
    """Changes nothing in the database."""
    checks = [warn("address", *_halves(warning)) for warning in address.warnings]
    checks += await diagnose(address, meaning=is_wanted(settings))
    if not any(check.status is CheckStatus.FAIL for check in checks):
        checks += await _credentials(settings, address, checks)
        checks += await _webhooks(address)
    return checks


async def _webhooks(address: DatabaseAddress) -> list[Check]:
    """Whether deliveries were given up. None where there are no tables yet."""
    endpoints: Sequence[EndpointReport] | None = None
    try:
        async with open_store(address, access=Access.READ) as store:
            endpoints = await list_endpoints(store)
    except* (DatabaseUnusable, StoreError):
        pass  # the schema's own check says what is missing
    if endpoints is None:
        return []
    failed = [each for each in endpoints if each.failed]
    if failed:
        found = f"deliveries were given up: {sum(each.failed for each in failed)}, to {host_of(failed[0].url)}"
        mend = "lastcall webhooks deliveries --state failed says why; lastcall webhooks retry sends them again"
        return [warn(WEBHOOKS, found + (f" and {len(failed) - 1} more" if len(failed) > 1 else ""), mend)]
    return [ok(WEBHOOKS, "nothing was given up" if endpoints else "there are none")]


async def _credentials(settings: Settings, address: DatabaseAddress, checks: list[Check]) -> list[Check]:
    """Whether everybody who should not get in is kept out. None where there are no tables yet."""
    found: list[Check] = []
    try:
        async with open_store(address, access=Access.READ) as store:
            await require_credentials_unless_loopback(Authenticator(store, settings), settings)
    except* BadSettings as errors:
        wrong, _, mend = str(_first(errors)).rstrip(".").partition("; ")
        found.append(fail(CREDENTIALS, wrong, mend or "correct the file or the setting that it names"))
    except* (DatabaseUnusable, StoreError):
        pass  # the schema's own check says what is missing
    else:
        local = is_loopback(settings.host)
        who = "only this machine can connect" if local else "nobody gets in without a key or token"
        found.append(ok(CREDENTIALS, f"{who} (--host {settings.host})"))
    return found


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    return next(_first(each) if isinstance(each, BaseExceptionGroup) else each for each in errors.exceptions)


def _halves(warning: str) -> tuple[str, str]:
    """`found (mend)` or `found; mend`, as the warnings of an address are written."""
    found, _, mend = warning.partition(" (" if warning.endswith(")") else "; ")
    return found, mend.removesuffix(")")
