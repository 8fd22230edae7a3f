"""Which pgvector will do."""

from __future__ import annotations

import pytest
from lastcall.runtime.check import CheckStatus
from lastcall.store.postgres.preparation.meanings import extension_check


@pytest.mark.parametrize("version", ["0.7.0", "0.8.5", "0.10", "1.0.0"])
@pytest.mark.parametrize("installed", [True, False])
def test_one_with_half_precision_vectors_will_do(version: str, installed: bool) -> None:
    assert extension_check(version if installed else None, version) is None


def test_an_older_one_that_is_installed_counts_whatever_is_available() -> None:
    check = extension_check("0.6.2", "0.8.5")
    assert check is not None
    assert check.status is CheckStatus.WARN
    assert "pgvector 0.6.2 is too old" in check.found
    assert "ALTER EXTENSION vector UPDATE" in check.mend


def test_none_at_all_is_told_in_one_line() -> None:
    check = extension_check(None, None)
    assert check is not None
    assert "no pgvector: turns are found by their words only" in check.found
    assert "--no-meaning" in check.mend
