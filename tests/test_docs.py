"""The documentation keeps up with the program, and its links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from audit.cli import main
from audit.config import AuditConfig, option_name

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_command_line_page_is_what_the_commands_say():
    spec = importlib.util.spec_from_file_location("update_cli", ROOT / "docs" / "update_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.cli_page(), "run: make docs"


def test_every_command_and_option_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"## gradcam-audit {name}\n" in text
    for field in AuditConfig.model_fields:
        assert option_name(field) in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
