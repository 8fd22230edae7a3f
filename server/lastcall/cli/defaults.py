"""A command that also has subcommands: `lastcall sessions`, and `lastcall sessions close`."""

from __future__ import annotations

import click


class DefaultGroup(click.Group):
    """Takes whatever does not name a subcommand as the words of its default one."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def with_subcommands(default: click.Command, *others: click.Command) -> DefaultGroup:
    """A group that has the name of its default command, and shows its help."""
    group = DefaultGroup(default.name, help=default.help, short_help=default.short_help)
    names = ", ".join(f"lastcall {default.name} {other.name}" for other in others)
    default.epilog = f"See also: {names}."
    group.add_command(default, DefaultGroup.default)
    for other in others:
        group.add_command(other)
    return group
