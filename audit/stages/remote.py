"""An audit as a worker on another machine has it: opened anew from its files.

In: a `Site`, which is small and can be sent. Out: a `Context` like the driver's, that writes no
manifest and hands on its warnings. What is sent is paths and options; images, models and tables are
read where they lie, so every machine must reach them by the same paths.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import pandas as pd

from audit.config import AuditConfig
from audit.engines import local, ray
from audit.errors import ConfigError, RunFolderError
from audit.inputs import Inputs
from audit.manifest import installed_versions
from audit.places import Place
from audit.predict.listing import Listing
from audit.run_folder import Receipt, RunFolder, ShardSpec
from audit.stages.context import Context

Worker = TypeVar("Worker")


@dataclass(frozen=True)
class Site:
    """Where the parts of an audit are.

    Attributes:
        model: a file or a folder.
        root: the folder that the images' paths are relative to.
        run: the run folder.
        started: when the run began, by which its folder is known from one of the same name.
        versions: of the packages that make results.
    """

    model: Place
    root: Place
    run: Place
    kind: Literal["folders", "flat", "manifest", "dataset"]
    class_names: tuple[str, ...]
    config: AuditConfig
    started: str
    versions: dict[str, str]

    def open(self, warn: Callable[[str, str], None]) -> Context:
        """Return the audit as it is seen from this machine.

        Raises:
            ConfigError: if packages differ from the driver's.
            RunFolderError: if the model, the images or the run is not here.
        """
        self._check_versions()
        for name, path in (("the model", self.model), ("the images", self.root)):
            if not path.exists():
                raise RunFolderError(
                    f"A worker does not see {name}. Received: no `{path}` on the machine"
                    f" `{socket.gethostname()}`. Put them on storage that all machines reach by the"
                    " same path."
                )
        folder = RunFolder(self.run)
        manifest = folder.read_manifest() if folder.manifest_path.is_file() else {}
        if manifest.get("started") != self.started:
            raise RunFolderError(
                f"A worker does not see the run folder. Received: {'another' if manifest else 'no'}"
                f" run at `{self.run}` on the machine `{socket.gethostname()}`. Give an --out on"
                " storage that all machines reach by the same path."
            )
        inputs = Inputs(self.model, self.root, self.config)
        nothing = pd.DataFrame(columns=["path", "kind", "reason"], dtype=str)
        images = folder.read_table("images")
        inputs.listing = Listing(self.kind, self.root, images, self.class_names, nothing)
        return _RemoteContext(inputs, folder, self.config, False, manifest, on_warning=warn)

    def _check_versions(self) -> None:
        here = installed_versions()
        for name, version in self.versions.items():
            if here.get(name) != version:
                raise ConfigError(
                    f"A worker has another version of {name}. Received: {here.get(name)} on the"
                    f" machine `{socket.gethostname()}`, {version} where the audit was started."
                    " Install the same packages on all machines."
                )


@dataclass
class _RemoteContext(Context):
    """Keeps its manifest to itself, and hands on its warnings."""

    on_warning: Callable[[str, str], None] = lambda kind, text: None

    def save_manifest(self) -> None:
        pass

    def warn(self, kind: str, text: str) -> None:
        self.on_warning(kind, text)


@dataclass(frozen=True)
class Recipe(Generic[Worker]):
    """Makes a worker on any machine of a site. It can be sent.

    Attributes:
        make: a function of a module, as `Context.run_shards` takes it.
    """

    site: Site
    make: Callable[[Context, Callable[[int], Any]], Worker]

    def __call__(self, warn: Callable[[str, str], None]) -> Worker:
        """Open the audit here and make the worker."""
        return self.make(self.site.open(warn), lambda n: None)


def check_can_be_sent(inputs: Inputs) -> None:
    """Refuse a model or data in memory: they cannot be had on other machines.

    Raises:
        ConfigError: if one of them is no path.
    """
    for name, given in (("model", inputs.model_input), ("data", inputs.data_input)):
        if not isinstance(given, Place):
            raise ConfigError(
                f"`--engine ray` needs the {name} in files. Received: a {type(given).__name__} in"
                " memory. Save it where all machines can read it, or leave `engine` at local."
            )


def site_of(audit: Context) -> Site:
    """Return where the parts of an audit are."""
    inputs, listing = audit.inputs, audit.inputs.listing
    check_can_be_sent(inputs)
    return Site(
        model=inputs.model_input.absolute(),
        root=(listing.root or inputs.data_input).absolute(),
        run=audit.folder.path.absolute(),
        kind=listing.kind,
        class_names=listing.class_names,
        config=audit.config,
        started=audit.manifest["started"],
        versions=installed_versions(),
    )


def run_shards(
    audit: Context,
    specs: list[ShardSpec],
    audit_shard: Callable[[ShardSpec, Worker], Receipt],
    make: Callable[[Context, Callable[[int], Any]], Worker],
    on_images: Callable[[int], Any],
) -> list[Receipt]:
    """Do the shards of a stage that are missing, with the engine that was asked for.

    Args:
        make: a function of a module that makes a worker of an audit, here or elsewhere, and of
            what is called with the number of images of each batch that is done.
        on_images: called with the number of images that are done, or were done before.

    Returns:
        The receipts of all shards, in order.
    """
    config = audit.config
    if config.engine == "local":
        return local.run_shards(
            audit.folder, specs, audit_shard, lambda: make(audit, on_images), on_images
        )
    return ray.run_shards(
        audit.folder,
        specs,
        audit_shard,
        Recipe(site_of(audit), make),
        on_images,
        cluster=ray.Cluster(config.address, config.workers, config.gpus_per_worker),
        on_warning=audit.warn,
        on_wait=audit.say,
    )
