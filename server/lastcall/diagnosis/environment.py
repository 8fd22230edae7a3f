"""Variables of the environment that look like settings of ours, and are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

from ..config import ENVIRONMENT_PREFIX, Settings
from ..runtime.check import Check, ok, warn

ENVIRONMENT = "environment"
STRAY_VARIABLES = "other_variables"
OTHERS = ("AGENT_KEY", "CHAT_KEY", "CHAT_URL", "CONFIG", "OIDC_CLIENT_SECRET")  # that are no settings
# What Kubernetes sets in every pod beside a service that is called lastcall.
_OF_KUBERNETES = re.compile(r"(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP)(_(ADDR|PORT|PROTO))?)", re.ASCII)
NAMES_SHOWN_MAX = 10


def check_environment(environ: Mapping[str, str]) -> Iterator[Check]:
    """A warning for each variable `LASTCALL_…` that sets nothing. Never shows a value.

    Those that resemble no setting have a name of their own: a script around the server may use them for itself.
    """
    known = [*OTHERS, *(each.name.upper() for each in fields(Settings) if each.metadata.get("flag"))]
    names = [name.removeprefix(ENVIRONMENT_PREFIX) for name in environ if name.startswith(ENVIRONMENT_PREFIX)]
    unknown = sorted(name for name in names if name not in known and not _OF_KUBERNETES.fullmatch(name))
    for name in unknown[:NAMES_SHOWN_MAX]:
        near = difflib.get_close_matches(name, known, n=1)
        mend = f"did you mean {ENVIRONMENT_PREFIX}{near[0]}?" if near else "lastcall config lists all; unset it"
        found = f"{ENVIRONMENT_PREFIX}{name} is not a setting, and does nothing"
        yield warn(ENVIRONMENT if near else STRAY_VARIABLES, found, mend)
    if not unknown:
        yield ok(ENVIRONMENT, f"every variable {ENVIRONMENT_PREFIX}… is a setting")
