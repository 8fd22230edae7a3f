"""`lastcall prune`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ..options import question_options_with
from ..running import ask
from ..tables import print_json

if TYPE_CHECKING:
    from ...store.operators.retention import Dropped, Kept
    from ...store.reports import Rows

PROGRESS_SECONDS = 2.0


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be deleted.")
@question_options_with("transcript_days", "session_days", "audit_days")
def prune(
    *,
    dry_run: bool,
    transcript_days: float | None,
    session_days: float | None,
    audit_days: float | None,
    as_json: bool,
    **database: Any,
) -> None:
    """Delete what is older than the given days, as a server with these settings does by itself.

    In small batches, beside running servers. It can be interrupted at any time, and goes on the next time.
    """
    from ...store.operators.retention import Kept, count_old

    kept = Kept(transcript_days, session_days, audit_days)
    if kept.forever:
        raise click.UsageError("Pass --transcript-days, --session-days or --audit-days.")

    async def question(store: Rows) -> Dropped:
        return await (count_old(store, kept) if dry_run else _drop(store, kept))

    dropped = ask(question, writes=not dry_run, **database)
    if as_json:
        print_json(dropped)
    else:
        click.echo(f"{'To be deleted' if dry_run else 'Deleted'}: {_counts(dropped)}.")


async def _drop(store: Rows, kept: Kept) -> Dropped:
    from ...store.operators.retention import Dropped, drop_old

    total, told = Dropped(), time.monotonic()

    async def tell(dropped: Dropped) -> None:
        nonlocal total, told
        total += dropped
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            click.echo(f"lastcall: {_counts(total)} so far", err=True)

    await drop_old(store, kept, tell, patient=True)
    return total


def _counts(dropped: Dropped) -> str:
    return (
        f"{dropped.messages:,} messages, {dropped.sessions:,} sessions and"
        f" {dropped.audit_lines:,} lines of the audit log"
    )
