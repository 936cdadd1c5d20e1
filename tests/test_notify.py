"""The user's own command gets the summary, and cannot harm the run."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from audit import notify as notify_module
from audit.errors import ConfigError
from audit.notify import notify, parse_command

COPY = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
HOSTILE = {"run": "</script>\u2028 \U0001f600 \udce9", "error": None, "n": 1}


def test_a_command_is_split_without_a_shell():
    assert parse_command(f"{sys.executable} -c 'a b' \"c;d\" $HOME *") == [
        sys.executable,
        "-c",
        "a b",
        "c;d",
        "$HOME",
        "*",
    ]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "tell"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert parse_command("~/tell me") == [str(program), "me"]


@pytest.mark.parametrize("text", ["", "  ", "no-such-program x", "echo 'open", "/etc/passwd"])
def test_a_command_that_cannot_be_run_is_refused_at_once(text: str):
    with pytest.raises(ConfigError, match="`--notify-cmd` cannot be used: "):
        parse_command(text)


def test_the_command_gets_the_summary_as_json(tmp_path: Path):
    assert notify([sys.executable, "-c", COPY, str(tmp_path / "got")], HOSTILE) is None
    assert json.loads((tmp_path / "got").read_text()) == HOSTILE


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit(3)", "it ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with exit code -9"),
    ],
)
def test_what_went_wrong_is_said(code: str, says: str):
    assert notify([sys.executable, "-c", code], {}) == says


def test_a_command_that_does_not_read_is_no_trouble():
    assert notify([sys.executable, "-c", ""], {"long": "x" * 1_000_000}) is None


def test_a_program_that_is_gone_by_then_is_said(tmp_path: Path):
    assert notify([str(tmp_path / "gone")], {}) == "No such file or directory"


def test_a_command_cannot_hang_the_night(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(notify_module, "TIMEOUT", 1.0)
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    begin = time.monotonic()
    said = notify([sys.executable, "-c", code, str(child)], {})
    assert said == "it ran for more than 1 s and was ended"
    assert time.monotonic() - begin < 20
    if child.is_file():  # What it had started is ended, too.
        state = Path(f"/proc/{child.read_text()}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z" or os.name == "nt"
