"""The checks of a database, and those that need one."""

from __future__ import annotations

from ..auth.authenticator import Authenticator, require_credentials_unless_loopback
from ..auth.origins import is_loopback
from ..config import BadSettings, Settings
from ..runtime.check import Check, CheckStatus, fail, ok, warn
from ..store.address import DatabaseAddress
from ..store.errors import StoreError
from ..store.postgres import Access, DatabaseUnusable, diagnose, open_store
from .meaning import is_wanted

CREDENTIALS = "credentials"


async def database_checks(settings: Settings, address: DatabaseAddress) -> list[Check]:
    """Changes nothing in the database."""
    checks = [warn("address", *_halves(warning)) for warning in address.warnings]
    checks += await diagnose(address, meaning=is_wanted(settings))
    if not any(check.status is CheckStatus.FAIL for check in checks):
        checks += await _credentials(settings, address, checks)
    return checks


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
