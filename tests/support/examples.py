"""How many examples a property test tries: all in `scripts/test --all`, a quarter in the fast run."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

PROFILES = {"all": 100, "quick": 25}  # examples of a test that does not say how many


def load_profile(name: str) -> None:
    """Before test modules are imported. Fresh examples in every run, where hypothesis's own CI profile repeats them."""
    settings.register_profile(name, deadline=None, derandomize=False, print_blob=True, max_examples=PROFILES[name])
    settings.load_profile(name)


def examples(count: int, **options: Any) -> settings:
    """The settings of a test that needs another number of examples than most."""
    return settings(
        max_examples=max(1, count * PROFILES[settings.get_current_profile_name()] // PROFILES["all"]), **options
    )
