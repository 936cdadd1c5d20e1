"""Run a command of the user's own when an audit has ended, with what came of it on its stdin."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from audit.errors import ConfigError

TIMEOUT = 60.0
"""Seconds after which a command that still runs is killed."""


def parse_command(text: str) -> list[str]:
    """Split a command into words as a shell does, without running one.

    Raises:
        ConfigError: if it cannot be split, or there is no such program.
    """
    try:
        words = shlex.split(text, posix=os.name != "nt")
    except ValueError as exc:
        raise ConfigError(
            f"`--notify-cmd` cannot be used: {exc}. Received: {text!r}. Close every quotation."
        ) from exc
    program = os.path.expanduser(words[0]) if words else ""
    if shutil.which(program) is None:
        raise ConfigError(
            f"`--notify-cmd` cannot be used: there is no program `{program}`. Received: {text!r}."
            " Give a program and its arguments; for pipes and variables, sh -c '…'."
        )
    return [program, *words[1:]]


def notify(command: Sequence[str], summary: Mapping[str, Any]) -> str | None:
    """Run a command with a summary as JSON on its stdin; its output goes to stderr.

    Returns:
        What went wrong, or `None`.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=2, text=True, start_new_session=True
        )
    except OSError as exc:
        return f"{exc.strerror or exc}"
    try:
        process.communicate(json.dumps(summary), timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        _kill(process)
        return f"it ran for more than {TIMEOUT:g} s and was ended"
    return f"it ended with exit code {process.returncode}" if process.returncode else None


def _kill(process: "subprocess.Popen[str]") -> None:
    """End a command and what it started."""
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
