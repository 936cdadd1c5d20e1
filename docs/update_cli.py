"""Write docs/cli.md from the commands' own help texts; a test checks that it is current."""

from pathlib import Path

import click
from click.testing import CliRunner

from audit.cli import main

PAGE = Path(__file__).with_name("cli.md")


def cli_page() -> str:
    """Return the page: every command's help, as a terminal of 100 columns shows it."""
    parts = ["# Command line\n\nMade from the commands' own help by `make docs`.\n"]
    for name in [None, *main.commands]:
        arguments = [*([name] if name else []), "--help"]
        shown = CliRunner().invoke(
            main, arguments, prog_name="gradcam-audit", terminal_width=100, catch_exceptions=False
        )
        title = f"gradcam-audit {name}" if name else "gradcam-audit"
        parts.append(f"## {title}\n\n```\n{click.unstyle(shown.output).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
