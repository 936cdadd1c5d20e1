"""A finished run, to look at from Python, a terminal or a script. Needs no TensorFlow."""

from dataclasses import asdict
from functools import cached_property
from typing import Any

import pandas as pd

from audit.gates import Gate, check_limits
from audit.places import Place
from audit.run_folder import OCCLUSION, RunFolder

_MOST_CLASSES_IN_A_MATRIX = 1000


class Run:
    """A run folder as an object: its tables as pandas frames, and where its report is."""

    def __init__(self, path: str | Place) -> None:
        """Open a run.

        Raises:
            RunFolderError: if the folder does not hold one.
        """
        self._folder = RunFolder.open(path)

    @property
    def path(self) -> Place:
        return self._folder.path

    @property
    def report_path(self) -> Place:
        """The report's first page."""
        return self._folder.report_path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was audited, with which options and versions, and how far it came."""
        return self._folder.read_manifest()

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return self._folder.read_metrics()

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Every predicted image: image_id, path, y_true, y_pred, p_true, p_pred, margin, scores."""
        return self._folder.read_predictions(scores=True)

    @property
    def errors(self) -> pd.DataFrame:
        """The misclassified rows of `predictions`."""
        return self.predictions[self.predictions["y_true"] != self.predictions["y_pred"]]

    @cached_property
    def class_metrics(self) -> pd.DataFrame:
        return self._folder.read_table("class_metrics")

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Counts by true and predicted class, one row per cell."""
        return self._folder.read_table("confusion")

    @cached_property
    def layers(self) -> pd.DataFrame:
        return self._folder.read_table("layers")

    @cached_property
    def focus(self) -> pd.DataFrame:
        """One row per explained image and class, with what describes its map."""
        return self._folder.read_table("focus")

    @cached_property
    def patterns(self) -> pd.DataFrame:
        return self._folder.read_table("patterns")

    @cached_property
    def slices(self) -> pd.DataFrame:
        """Groups of images that are wrong more often, confirmed or not."""
        return self._folder.read_table("slices")

    @cached_property
    def label_issues(self) -> pd.DataFrame:
        """Suspected labels and near-duplicates."""
        return self._folder.read_table("label_issues")

    @cached_property
    def label_quality(self) -> pd.DataFrame:
        """How well each checked label agrees with the model and with similar images, 0 to 1."""
        return self._folder.read_table("label_quality")

    @cached_property
    def probes(self) -> pd.DataFrame:
        """How many correct images turn wrong under each transformation and strength."""
        return self._folder.read_table("probes")

    @cached_property
    def findings(self) -> list[dict[str, Any]]:
        """What holds up, the most important first, as in `findings.json`; empty if not there."""
        return self._read_list("findings")

    @cached_property
    def targets(self) -> list[dict[str, Any]]:
        """What to do next, in order, as in `targets.json`; empty if not there."""
        return self._read_list("targets")

    @cached_property
    def objects(self) -> dict[str, Any] | None:
        """How much of the focus lies inside the object; `None` without masks and boxes."""
        is_there = (self.path / "objects.json").is_file()
        return self._folder.read_json("objects") if is_there else None

    @cached_property
    def gates(self) -> list[Gate]:
        """The limits of `fail_under`, each with what was measured; empty before the metrics."""
        limits = self.manifest["config"].get("fail_under") or {}
        has_metrics = self.manifest["stages"]["metrics"]["state"] == "done"
        return check_limits(limits, self.metrics) if has_metrics else []

    @cached_property
    def unreadable(self) -> pd.DataFrame:
        """The files that were left out, and why."""
        return self._folder.read_table("unreadable")

    def fused_map(self, image_id: int, explained_class: int) -> Any:
        """Return the fused map of an image and class, uint8 of shape (height, width), 255 = peak.

        Raises:
            KeyError: if the image was not explained for that class.
        """
        fused = self._folder.read_fused()
        rows = fused[
            (fused["image_id"] == image_id) & (fused["explained_class"] == explained_class)
        ]
        if rows.empty:
            raise KeyError((image_id, explained_class))
        return rows["cam"].iloc[0]

    def summary(self) -> dict[str, Any]:
        """Return the run in a few values, as `gradcam-audit show --json` prints them.

        A run that was stopped before its metrics has `None` for what is not known yet.
        """
        manifest = self.manifest
        data = manifest["data"]
        summary: dict[str, Any] = {
            "format_version": manifest["format_version"],
            "status": manifest["status"],
            "model": (manifest["model"] or {}).get("name"),
            "method": manifest.get("method"),
            "class_names": manifest["class_names"],
            "positive_class": manifest["positive_class"],
            "n_images": data["n_images"],
            "n_unreadable": data["n_unreadable"],
            "n_undefined": data.get("n_undefined", 0),
            "n_skipped": data["n_skipped"],
        }
        summary |= self._metrics_summary() | self._explained_summary()
        summary |= self._diagnosis_summary()
        if self.objects is not None:
            summary["objects"] = self.objects
        summary["gates"] = [asdict(gate) for gate in self.gates]
        summary["warnings"] = [warning["text"] for warning in manifest["warnings"]]
        summary["report"] = str(self.report_path) if self.report_path.is_file() else None
        return summary

    def _metrics_summary(self) -> dict[str, Any]:
        if self.manifest["stages"]["metrics"]["state"] != "done":
            names = (
                "n_errors",
                "accuracy",
                "accuracy_interval",
                "false_positives",
                "false_negatives",
            )
            return dict.fromkeys((*names, "confusion"))
        metrics, binary = self.metrics, self.metrics["binary"] or {}
        return {
            "n_errors": metrics["n_errors"],
            "accuracy": metrics["accuracy"]["value"],
            "accuracy_interval": [metrics["accuracy"]["low"], metrics["accuracy"]["high"]],
            "false_positives": binary.get("fp"),
            "false_negatives": binary.get("fn"),
            "confusion": self._confusion_matrix(),
        }

    def _confusion_matrix(self) -> list[list[int]] | None:
        """Return the counts, rows true; `None` if there are too many: `confusion` has them."""
        n_classes = len(self.manifest["class_names"])
        if n_classes > _MOST_CLASSES_IN_A_MATRIX:
            return None
        matrix = [[0] * n_classes for _ in range(n_classes)]
        for cell in self.confusion.to_dict("records"):
            matrix[int(cell["y_true"])][int(cell["y_pred"])] = int(cell["count"])
        return matrix

    def _explained_summary(self) -> dict[str, Any]:
        if self.manifest["stages"]["patterns"]["state"] != "done":
            return dict.fromkeys(("n_explained_errors", "n_layers", "n_patterns", "patterns"))
        focus, layers = self.focus, self.layers
        paths = self._folder.read_table("images").set_index("image_id")["path"]
        patterns = [
            {
                "id": int(pattern["pattern"]),
                "name": pattern["name"],
                "n_errors": int(pattern["n_errors"]),
                "images": [paths[image_id] for image_id in pattern["exemplars"][:10]],
                "verdict": pattern["verdict"],
            }
            for pattern in self.patterns.to_dict("records")
        ]
        return {
            "n_explained_errors": int(focus.loc[focus["role"] == "error", "image_id"].nunique()),
            "n_layers": int((layers["kept"] & ~layers["kind"].isin(["fusion", OCCLUSION])).sum()),
            "n_patterns": len(patterns),
            "patterns": patterns,
        }

    def _diagnosis_summary(self) -> dict[str, Any]:
        if self.manifest["stages"].get("findings", {}).get("state") != "done":
            return dict.fromkeys(("findings", "targets"))
        return {"findings": self.findings, "targets": self.targets}

    def _read_list(self, name: str) -> list[dict[str, Any]]:
        if not (self.path / f"{name}.json").is_file():
            return []
        content: list[dict[str, Any]] = self._folder.read_json(name)[name]
        return content

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        from audit.report.render import render_summary

        return render_summary(self.summary())
