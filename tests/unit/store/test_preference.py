"""The order in which hosts are tried."""

from __future__ import annotations

from lastcall.store.postgres.network.preference import REMEMBERED_MAX, Preference


def test_what_worked_last_comes_first_and_what_hung_comes_last() -> None:
    preference = Preference[str]()
    assert preference.order("abc") == ["a", "b", "c"]
    preference.hung("a")
    assert preference.order("abc") == ["b", "c", "a"]
    preference.worked("c")
    assert preference.order("abc") == ["c", "b", "a"]
    preference.hung("b")
    assert preference.order("abc") == ["c", "a", "b"]
    preference.hung("c")
    assert preference.order("abc") == ["a", "b", "c"]
    preference.worked("b")
    assert preference.order("abc") == ["b", "a", "c"]


def test_what_hung_is_not_remembered_without_bound() -> None:
    preference = Preference[int]()
    for number in range(2 * REMEMBERED_MAX):
        preference.hung(number)
    assert preference.order([REMEMBERED_MAX, 1, 0]) == [REMEMBERED_MAX, 0, 1]
