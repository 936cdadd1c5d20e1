"""The kinds of paths that commands take: places, which may be URLs, and paths of this machine."""

from pathlib import Path
from typing import Any

import click

from audit.errors import ConfigError
from audit.places import is_url, place, without_secrets


class PlaceArgument(click.Path):
    """A path of this machine, or a URL of an object store. It need not exist."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a place."""
        if isinstance(value, str) and is_url(value):
            return place(value)
        return super().convert(value, param, ctx)


class LocalArgument(click.Path):
    """A path of this machine. It need not exist."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path.

        Raises:
            ConfigError: if it is a URL of something else.
        """
        if isinstance(value, str) and is_url(value):
            path = place(value)
            if not isinstance(path, Path):
                raise ConfigError(
                    f"`{without_secrets(value)}` cannot be used here. Received: a URL. Give a path"
                    " of this machine, and copy the file from there."
                )
            return path
        return super().convert(value, param, ctx)
