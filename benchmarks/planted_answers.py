"""Audit one planted setting and hold what the run says against the truth.

In: the folder of a setting. Out: its figures. Files of stages that a run does not have give `None`.
"""

import csv
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import planted_scores as scores
from planted_artefacts import WHOLE_IMAGE
from planted_scores import Found, Judged

import audit
from audit.results import Run

TESTED = {"causal", "not shown", "too few"}
"""Verdicts of patterns that went through the test."""
TOP = 50
"""Images of the pool that are looked at."""


def audit_setting(folder: Path, *, reuse: bool) -> tuple[Run, float | None]:
    """Audit a setting; return the run and its seconds, `None` if it was there already."""
    out = folder / "run"
    if reuse and (out / "manifest.json").is_file():
        run = Run(out)
        if run.manifest["status"] == "done":
            return run, None
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    run = audit.run(folder / "model.keras", folder / "val", out, progress=False)
    return run, time.perf_counter() - begin


def find_more(run: Run, target: str, pool: Path, out: Path) -> list[str]:
    """Return the paths that `gradcam-audit find` puts first."""
    from audit.cli import main as command

    arguments = ["find", str(run.path), "--target", target, "--pool", str(pool)]
    command([*arguments, "--top", str(TOP), "--out", str(out)], standalone_mode=False)
    with next(out.glob("*.csv")).open(newline="") as file:
        return [Path(row["path"]).name for row in csv.DictReader(file)]


class Answers:
    """A run's tables beside the truth, by `image_id`."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        truth = pd.read_csv(folder / "truth.csv", dtype={"y_true": str, "y_clean": str})
        joined = run.predictions[["image_id", "path", "y_true", "y_pred", "p_true"]]
        joined = joined.rename(columns={"y_true": "label"})
        self.images = joined.merge(truth, on="path", validate="one_to_one").set_index("image_id")
        self.images["is_error"] = self.images["label"] != self.images["y_pred"]
        self.patterns = run.summary()["patterns"]

    def paths(self, kind: str) -> set[str]:
        return set(self.images.loc[self.images[kind] == 1, "path"])

    def ids(self, kind: str) -> set[int]:
        return set(self.images.index[self.images[kind] == 1].tolist())

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table, or `None` if the run has none of that name."""
        if not (self.run.path / f"{name}.parquet").is_file():
            return None
        return getattr(self.run, name)

    def found(self, planted: dict[str, Any]) -> Found:
        kind = planted["kind"]
        precision, verdict = scores.judge_patterns(self.patterns, self.paths(kind))
        by_slice = by_probe = None
        if kind in WHOLE_IMAGE:
            by_slice = self._any("slices", lambda row: self._slice_names(row, kind))
            by_probe = self._any("probes", lambda row: scores.probe_names(row, kind))
        is_planted_error = self.images["is_error"] & (self.images[kind] == 1)
        return Found(
            kind=kind,
            n_errors=int(is_planted_error.sum()),
            repaired=planted["repaired"],
            precision=precision,
            verdict=verdict if verdict in TESTED else None,
            by_slice=by_slice,
            by_probe=by_probe,
        )

    def ari(self, kinds: Sequence[str]) -> float | None:
        """Return how well patterns agree with artefacts, if most errors carry one with a place."""
        errors = self.images[self.images["is_error"]]
        groups = scores.planted_groups(errors, kinds)
        if not len(groups) or (groups >= 0).mean() <= 0.5:
            return None
        focus = self.run.focus
        focus = focus[focus["explained_class"] == focus["y_pred"]].set_index("image_id")
        patterns = focus["pattern"].reindex(errors.index, fill_value=-1)
        return scores.agreement(groups, patterns.to_numpy())

    def labels(self) -> tuple[float | None, float | None]:
        """Return the average precision of the labels' quality, and of sorting by loss."""
        flipped = self.ids("flipped")
        quality = self.table("label_quality")
        if not flipped or quality is None:
            return None, None
        listed = quality.sort_values(["score", "image_id"])["image_id"].tolist()
        by_loss = scores.loss_precision(
            self.images["p_true"].to_numpy(), self.images["flipped"].to_numpy() == 1
        )
        return scores.ranking_precision(listed, flipped), by_loss

    def names(self, target: dict[str, Any], kind: str) -> bool:
        """Say whether a target is about an artefact: by its images, or by what it rests on."""
        if kind not in WHOLE_IMAGE:
            manifest = pd.read_csv(self.run.path / target["manifest"])
            paths = self.paths(kind)
            return scores.is_precise(
                scores.precision_at([path in paths for path in manifest["path"]], 10)
            )
        evidence = {finding["id"]: finding["evidence"] for finding in self.run.findings}
        return any(self._evidence_names(evidence[key], kind) for key in target["findings"])

    def first_target(self, kinds: Sequence[str]) -> bool | None:
        """Say whether the first target names the one artefact there is."""
        if len(kinds) != 1 or not (self.run.path / "targets.json").is_file():
            return None
        targets = self.run.targets
        return bool(targets) and self.names(targets[0], kinds[0])

    def find_precision(self, kinds: Sequence[str]) -> float | None:
        """Return how many of the first fifty of the pool carry the artefact.

        Sought is what the first target that names the artefact is about; without one, nothing is
        found.
        """
        has_command = "find" in audit_commands()
        if not has_command or not (self.folder / "pool.csv").is_file():
            return None
        named = [target for target in self.run.targets if self.names(target, kinds[0])]
        if not named:
            return 0.0
        out = self.folder / "found"
        shutil.rmtree(out, ignore_errors=True)
        listed = find_more(self.run, named[0]["id"], self.folder / "pool", out)
        pool = pd.read_csv(self.folder / "pool.csv")
        carriers = set(pool.loc[pool[kinds[0]] == 1, "path"])
        return scores.precision_at([name in carriers for name in listed], TOP)

    def _any(self, table: str, says: Callable[[dict[str, Any]], bool]) -> bool | None:
        frame = self.table(table)
        return None if frame is None else any(says(row) for row in frame.to_dict("records"))

    def _slice_names(self, row: dict[str, Any], kind: str) -> bool:
        return scores.slice_names(row, kind, self.ids(kind))

    def _evidence_names(self, evidence: dict[str, Any], kind: str) -> bool:
        if evidence["table"] == "slices":
            slices = self.run.slices
            chosen = slices[slices["slice"] == evidence["key"]].to_dict("records")
            return any(self._slice_names(row, kind) for row in chosen)
        is_probe = evidence["table"] == "probes"
        return is_probe and str(evidence["key"]).split(", strength")[0] in scores.PROBES[kind]


def audit_commands() -> set[str]:
    """Return the names of the commands that there are."""
    from audit.cli import main as command

    return set(command.commands)


def judge(folder: Path, *, reuse: bool) -> Judged:
    """Audit one setting and hold the run against the truth."""
    described = json.loads((folder / "setting.json").read_text())
    run, seconds = audit_setting(folder, reuse=reuse)
    answers = Answers(run, folder)
    kinds = [planted["kind"] for planted in described["artefacts"]]
    verdicts = [pattern["verdict"] for pattern in answers.patterns]
    stage = run.manifest["stages"].get("causes", {})
    is_tested = stage.get("state") == "done" or any(verdict in TESTED for verdict in verdicts)
    label_precision, loss_precision = answers.labels()
    targets = run.targets
    return Judged(
        name=described["name"],
        null=described["null"],
        n_errors=int(answers.images["is_error"].sum()),
        found=tuple(answers.found(planted) for planted in described["artefacts"]),
        n_patterns=len(verdicts),
        n_causal=verdicts.count("causal") if is_tested else None,
        ari=answers.ari(kinds),
        label_precision=label_precision,
        loss_precision=loss_precision,
        find_precision=answers.find_precision(kinds),
        first_target=answers.first_target(kinds),
        first_title=targets[0]["title"] if targets else None,
        seconds=seconds,
    )
