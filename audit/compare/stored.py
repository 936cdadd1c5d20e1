"""What each run found, in terms of the images that all runs have.

In: the tables of a run and the matched images. Out: slices, patterns, maps and answers to painting
out, by position among the matched images. A run that has none of a kind gives none.
"""

import numpy as np
import pandas as pd

from audit.compare.changes import Group
from audit.compare.matching import ComparedRun, MatchedRuns
from audit.compare.patterns_change import FoundPattern
from audit.diagnose.conditions import make_table
from audit.diagnose.slices import slice_members, split_images
from audit.diagnose.tables import conditions_of
from audit.explain.painting import AREAS, FOCUS
from audit.run_folder import decode_cam
from audit.schemas import records

_PREDICTED = "y_pred"
_CLASSES_ALONE = "class"


def read_slices(images: MatchedRuns, run: int) -> list[Group]:
    """Return the confirmed slices of a run, as groups of the matched images.

    A slice was found for the errors of one half of the run's images. Of those, some come right in
    any other run. So its group has only images of the half that was kept back: of 600 pairs of
    equal models with a true slice, 2 % then seem to differ on one, where it would be 7 % on all.

    Those that are a class, or a condition on the prediction, are left out: classes are compared
    themselves, and an image cannot be broken into a group that it is in for being wrong.
    """
    source = images.runs[run]
    slices = source.table("slices", ("confirmed", "kind", "name", "conditions"))
    chosen = slices[slices["confirmed"].astype(bool) & (slices["kind"] != _CLASSES_ALONE)]
    if chosen.empty or source.properties is None:
        return []
    metadata = source.folder.read_table("images").drop(columns=["path", "y_true"])
    duplicates = source.table("duplicates", ("image_id", "group")).astype({"image_id": np.int64})
    table = make_table(
        source.predictions, source.properties, metadata, duplicates, source.class_names
    )
    kept_back = ~split_images(table, duplicates, int(source.manifest["config"]["seed"]))
    rows = table.set_index("image_id").index.get_indexer(images.image_ids[run])
    table, kept_back = table.iloc[rows], kept_back[rows]
    groups = []
    for row in records(chosen):
        conditions = conditions_of(row)
        if all(condition["column"] != _PREDICTED for condition in conditions):
            members = slice_members(conditions, table) & kept_back
            groups.append(Group("slice", str(row["name"]), members, source.label))
    return groups


def read_patterns(images: MatchedRuns, run: int, *, is_later: bool) -> list[FoundPattern]:
    """Return the focus patterns of a run with those of their errors that all runs have."""
    source = images.runs[run]
    focus = source.table("focus", ("image_id", "role", "is_predicted", "pattern"))
    patterns = source.table("patterns", ("pattern", "name", "kind", "n_errors", "verdict"))
    errors = focus[(focus["role"] == "error") & focus["is_predicted"].astype(bool)]
    positions = _positions(images, run)
    found = []
    for row in records(patterns):
        members = errors.loc[errors["pattern"] == row["pattern"], "image_id"]
        known = positions.reindex(members).dropna().to_numpy(np.int64)
        found.append(
            FoundPattern(
                number=int(row["pattern"]),
                name=str(row["name"]),
                kind=str(row["kind"]),
                verdict=str(row["verdict"]),
                is_later=is_later,
                n_errors=int(row["n_errors"]),
                errors=np.sort(known),
            )
        )
    return found


def read_mean_maps(run: ComparedRun) -> dict[int, np.ndarray]:
    """Return the mean map of each pattern of a run, uint8 of shape (height, width)."""
    columns = ("pattern", "mean_map", "mean_height", "mean_width")
    rows = run.table("patterns", columns)[list(columns)].itertuples(index=False)
    return {
        int(number): decode_cam(mean_map, int(height), int(width))
        for number, mean_map, height, width in rows
    }


def read_maps(images: MatchedRuns, run: int) -> dict[tuple[int, int], np.ndarray]:
    """Return the fused maps that show a place, by position and class.

    Those that were computed for the comparison are among them.
    """
    source = images.runs[run]
    fused = source.folder.read_fused()
    if source.computed is not None and len(source.computed.maps):
        both = pd.concat([fused, source.computed.maps] if len(fused) else [source.computed.maps])
        fused = both.drop_duplicates(["image_id", "explained_class"])  # The run's own come first.
    positions = _positions(images, run).reindex(fused["image_id"]).to_numpy(np.float64)
    order = images.class_order(run)
    usable = ~np.isnan(positions) & (fused["peak"].to_numpy(np.float64) > 0)
    rows = zip(
        positions[usable], fused["explained_class"][usable], fused["cam"][usable], strict=True
    )
    return {
        (int(position), int(order[explained])): cam
        for position, explained, cam in rows
        if cam.any()
    }


def computed_keys(images: MatchedRuns, run: int) -> set[tuple[int, int]]:
    """Return position and class of the maps that were computed for the comparison."""
    computed = images.runs[run].computed
    if computed is None:
        return set()
    positions, order = _positions(images, run), images.class_order(run)
    rows = computed.maps[computed.maps["image_id"].isin(positions.index)]
    return {
        (int(positions[image_id]), int(order[explained]))
        for image_id, explained in zip(rows["image_id"], rows["explained_class"], strict=True)
    }


def lacking(images: MatchedRuns, run: int, other: int) -> list[tuple[int, int]]:
    """Return image_id and class, both as a run has them, of the maps that only the other run has.

    A map of the run's own that shows no place is not missing.
    """
    source = images.runs[run]
    own = source.folder.read_fused()[["image_id", "explained_class"]]
    is_there = set(own.astype(np.int64).itertuples(index=False, name=None))
    class_of = np.argsort(images.class_order(run))
    wanted = (
        (int(images.image_ids[run, position]), int(class_of[explained]))
        for position, explained in read_maps(images, other)
    )
    return sorted(key for key in wanted if key not in is_there)


def read_repaired(images: MatchedRuns, run: int) -> np.ndarray:
    """Return whether each error turned right without its focus.

    Returns:
        float64 of shape (n,): 1 or 0 for the largest area that was painted out, NaN for images that
        were not, or whose scores were not finite.
    """
    repaired = np.full(len(images.y_true), np.nan)
    columns = ["image_id", "treatment", "area", "y_pred"]
    order = images.class_order(run)
    positions = _positions(images, run)
    for shard in images.runs[run].folder.iter_shards("causes", columns):
        largest = (shard["treatment"] == FOCUS) & np.isclose(shard["area"], AREAS[-1])
        rows = shard[largest & (shard["y_pred"] >= 0) & shard["image_id"].isin(positions.index)]
        chosen = positions.loc[rows["image_id"]].to_numpy(np.int64)
        repaired[chosen] = order[rows["y_pred"].to_numpy(np.int64)] == images.y_true[chosen]
    return repaired


def _positions(images: MatchedRuns, run: int) -> "pd.Series[int]":
    """Return the position of each matched image, by its id in a run."""
    return pd.Series(np.arange(len(images.y_true)), index=images.image_ids[run])
