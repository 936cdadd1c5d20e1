"""Paths on a command line: places may be URLs, files that are made here may not."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from audit.arguments import LocalArgument, PlaceArgument
from audit.errors import ConfigError
from audit.places import Remote


def convert(kind: click.Path, text: str) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize("kind", [PlaceArgument(), LocalArgument()])
@pytest.mark.parametrize("text", ["val", "/data/val", "s3:/val", "-"])
def test_a_path_of_this_machine_stays_one(kind: click.Path, text: str):
    assert convert(kind, text) == Path(text)
    assert convert(kind, "file:///data/val") == Path("/data/val")


def test_a_url_is_a_place(bucket: Remote):
    assert convert(PlaceArgument(), str(bucket)) == bucket


def test_what_is_made_here_cannot_be_behind_a_url(bucket: Remote):
    with pytest.raises(ConfigError, match=r"cannot be used here\. Received: a URL"):
        convert(LocalArgument(), str(bucket))
    with pytest.raises(ConfigError, match="with a password in it"):
        convert(LocalArgument(), "s3://key:secret@bucket/report.zip")


def test_a_command_gets_what_it_can_use(tmp_path: Path):
    @click.command()
    @click.argument("path", type=PlaceArgument())
    def show(path: Path) -> None:
        click.echo(type(path).__name__)

    assert CliRunner().invoke(show, [str(tmp_path)]).output.strip() in ("PosixPath", "WindowsPath")
    assert CliRunner().invoke(show, ["memory://bucket/x"]).output.strip() == "Remote"
