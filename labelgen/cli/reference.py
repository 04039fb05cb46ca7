"""The command line's reference, made from the code: `make docs` writes it to docs/cli.md; a test finds it stale."""

from __future__ import annotations

import click

from labelgen.cli.main import main

__all__ = ["cli_reference"]


def cli_reference() -> str:
    """Return the help of every command as Markdown."""
    parts = ["# The command line\n\nMade from the code by `make docs`.\n"]
    parent = click.Context(
        main, info_name="labelgen", max_content_width=110, terminal_width=110, **main.context_settings
    )
    for name, command in sorted(main.commands.items()):
        context = click.Context(command, info_name=name, parent=parent)
        parts.append(f"## labelgen {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(cli_reference(), end="")
