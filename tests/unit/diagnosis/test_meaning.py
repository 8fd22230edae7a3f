"""What a host is told of search by meaning."""

from __future__ import annotations

import pytest
from lastcall.config import Settings
from lastcall.diagnosis import meaning
from lastcall.diagnosis.host import host_checks
from lastcall.runtime.check import CheckStatus
from lastcall.store.postgres import MEANING


@pytest.mark.parametrize(
    ("wanted", "installed", "is_wanted", "status"),
    [
        (None, True, True, CheckStatus.OK),
        (None, False, False, CheckStatus.OK),
        (True, True, True, CheckStatus.OK),
        (True, False, False, CheckStatus.WARN),
        (False, True, False, CheckStatus.OK),
    ],
)
def test_the_extra_is_used_where_it_is_and_missed_where_it_was_asked_for(
    wanted: bool | None, installed: bool, is_wanted: bool, status: CheckStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "is_installed", lambda: installed)
    settings = Settings(meaning=wanted)
    assert meaning.is_wanted(settings) is is_wanted
    check = meaning.check_extra(settings)
    assert check.status is status
    assert len(str(check).splitlines()) == 1
    assert is_wanted or "by their words only" in check.found
    told = [each for each in host_checks(settings, {}) if each.name == MEANING]
    assert told == ([] if is_wanted else [check])  # else the database's own check says more


def test_what_was_asked_for_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "is_installed", lambda: False)
    assert "pip install 'lastcall[meaning]'" in meaning.check_extra(Settings(meaning=True)).mend
