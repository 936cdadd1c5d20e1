"""What every stage is given: the inputs, the run folder, the manifest, and ways to speak."""

import logging
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from audit.config import AuditConfig
from audit.inputs import Inputs
from audit.manifest import STAGES
from audit.run_folder import RunFolder

if TYPE_CHECKING:
    from audit.explain.maps import Explainer
    from audit.explain.occlusion import OcclusionExplainer
    from audit.predict.inference import Predictor

logger = logging.getLogger("audit")


@dataclass
class Context:
    """One audit under way.

    Attributes:
        manifest: the content of `manifest.json`; a stage that changes it calls `save_manifest`.
        progress: whether to show progress bars and warnings on stderr.
        explainer: what makes the maps, once the stage that needs it has made it.
    """

    inputs: Inputs
    folder: RunFolder
    config: AuditConfig
    progress: bool
    manifest: dict[str, Any] = field(default_factory=dict)
    explainer: "Explainer | OcclusionExplainer | None" = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.inputs.listing.class_names

    @cached_property
    def predictor(self) -> "Predictor":
        """What asks the model; it says so when memory does not suffice for a whole batch."""
        predictor = self.inputs.predictor
        predictor.on_halved = self._on_halved
        return predictor

    @property
    def batch_size(self) -> int:
        """How many images go through the model at once; found once where no option says it."""
        if self.config.batch_size is not None:
            return self.config.batch_size
        if self.manifest["batch_size"] is None:
            self.manifest["batch_size"] = self.predictor.fastest_batch_size()
            self.save_manifest()
        return int(self.manifest["batch_size"])

    def _on_halved(self, batch_size: int) -> None:
        self.warn(
            "memory",
            f"Memory did not suffice: from here on, {batch_size} images are shown to the model at"
            " once. Give less with `--batch-size` another time.",
        )
        self.save_manifest()

    def save_manifest(self) -> None:
        self.folder.write_manifest(self.manifest)

    def warn(self, kind: str, text: str) -> None:
        """Say something that the user must not miss: on stderr, in the log, manifest and report."""
        entry = {"kind": kind, "text": text}
        if entry not in self.manifest["warnings"]:
            self.manifest["warnings"].append(entry)
        self.say(text)

    def say(self, text: str) -> None:
        """Say something that matters only now: on stderr and in the log."""
        logger.warning(text)
        if self.progress:
            tqdm.write(f"WARNING: {text}", file=sys.stderr)

    def bar(self, stage: str, total: int, unit: str = "images") -> "tqdm[Any]":
        """Return a progress bar that says which stage of how many this is."""
        label = f"{stage} (stage {STAGES.index(stage) + 1} of {len(STAGES)})"
        return tqdm(
            total=total, desc=label, unit=f" {unit}", disable=not self.progress, file=sys.stderr
        )
