"""Rank a pool of unlabelled images by how like they are to the images of a target.

In: a run, the id of a target, a folder of images. Out: a folder with a table of the images most
like it and a page that shows them. A search that was stopped goes on where it was.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from audit.engines.local import cut_shards, run_shards
from audit.errors import DatasetError
from audit.explain.maps import fit_into
from audit.explain.pooling import make_local_features
from audit.places import Place, place
from audit.predict.dataset import Batch, FileSource
from audit.predict.fetched import open_files
from audit.predict.inference import Predictor
from audit.predict.listing import Listing, list_unlabelled
from audit.predict.model import AuditedModel
from audit.report.contact_sheet import Hit, Picture, Sheet, render_contact_sheet
from audit.report.images import decode_picture, encode_jpeg
from audit.run_folder import RunFolder
from audit.schemas import records
from audit.search.audited import batch_size_of, config_of, find_pixel_range, open_model, rule_of
from audit.search.likeness import (
    CALIBRATION_IMAGES,
    Calibration,
    Comparison,
    LocalFeatures,
    calibrate,
    combine,
)
from audit.search.query import Query, read_query
from audit.search.scoring import STAGE, ScoringWorker, in_range, score_shard
from audit.search.search_folder import open_search, write_found, write_left_out

if TYPE_CHECKING:
    import keras

PICTURE_SIDE = 224
"""Longest side of a picture on the contact sheet."""
_EXAMPLES = 8
_PICTURES_AT_ONCE = 32
_CALIBRATION = "calibration"


@dataclass(frozen=True)
class Found:
    """What came of a search.

    Attributes:
        table: the images most like the target, the most alike first: rank, path (below the pool),
            likeness, place, whole (cosines, -1 to 1; place is NaN where only whole images could be
            compared), predicted_class, p (its probability).
        csv_path, sheet_path: where the same is, as a table and as a page.
        target: the entry of `targets.json`.
        n_images: images in the pool, with those that cannot be read.
        n_unreadable, n_skipped: of the former, and other files; `unreadable.csv` names them.
        notes: what the user should know of the search.
    """

    table: pd.DataFrame
    csv_path: Place
    sheet_path: Place
    target: dict[str, Any]
    n_images: int
    n_unreadable: int
    n_skipped: int
    notes: tuple[str, ...]


def find_images(
    run: str | Place,
    target_id: str,
    pool: str | Place,
    *,
    top: int = 50,
    out: str | Place | None = None,
    model: "str | Place | keras.Model | Callable[[Any], Any] | None" = None,
    trust_model_code: bool = False,
    progress: bool = True,
) -> Found:
    """Find the images of a pool that are most like a target's.

    For a target that rests on a focus pattern, an image is like the target's if some place in it
    looks, to the model, like what the model looked at in these. Otherwise, and if that is not
    known, whole images are compared.

    Args:
        run: the run folder.
        target_id: "T1", as in `targets.json`.
        pool: a folder of images, which may lie in folders of their own.
        top: how many are listed and shown.
        out: where the search is kept; by default `find/<target>` in the run folder.
        model: the run's model, or where it is; by default it is where it was, but for a URL, which
            has to be given.
        trust_model_code: whether code that the model's file brings along may be run. What the run
            was told does not count: its folder may come from somebody else.
        progress: whether to show a progress bar on stderr.

    Raises:
        AuditError: if the run, the target, the pool or the model cannot be used.
    """
    folder = RunFolder.open(run)
    manifest = folder.read_manifest()
    query = read_query(folder, target_id)
    searched = place(pool)
    listing = list_unlabelled(searched)
    kept = place(out) if out else folder.path / "find" / target_id
    search = open_search(kept, searched, manifest, query, listing)
    source = _open_pool(listing, manifest)
    specs = cut_shards(STAGE, listing.images["image_id"], config_of(manifest).shard_size)
    label = f"find {target_id}"
    with tqdm(
        total=len(listing.images), desc=label, unit=" images", disable=not progress, file=sys.stderr
    ) as bar:

        def make_worker() -> ScoringWorker:
            audited = open_model(manifest, model, trust_model_code=trust_model_code)
            return _make_worker(folder, manifest, search, query, source, audited, bar.update)

        receipts = run_shards(search, specs, score_shard, make_worker, bar.update)
    left_out = write_left_out(search, listing, receipts)
    ranked = _rank(search, listing, manifest["class_names"], top)
    if ranked.empty:
        raise DatasetError(
            f"None of the {len(listing.images)} images of the pool could be read. Received, for the"
            f" first: {left_out['reason'].iloc[0]}. The others are listed in"
            f" `{search.path / 'unreadable.csv'}`."
        )
    table = ranked.drop(columns=["image_id", "top", "left"])
    found = Found(
        table,
        write_found(search, table),
        search.path / "contact_sheet.html",
        query.target,
        len(listing.images),
        int((left_out["kind"] == "unreadable").sum()),
        int((left_out["kind"] == "skipped").sum()),
        (query.why_whole,) if query.why_whole else (),
    )
    sheet = _make_sheet(found, ranked, folder, manifest, query, source)
    search.write_file(found.sheet_path.name, render_contact_sheet(sheet))
    return found


def _open_pool(listing: Listing, manifest: dict[str, Any]) -> FileSource:
    """Return the pool as the run's images were read."""
    made = manifest["input"]
    return open_files(
        listing,
        (made["height"], made["width"]),
        made["channels"],
        aspect=made["aspect"],
        interpolation=made["interpolation"],
        max_pixels=config_of(manifest).max_pixels,
    )


def _make_worker(
    folder: RunFolder,
    manifest: dict[str, Any],
    search: RunFolder,
    query: Query,
    source: FileSource,
    model: AuditedModel,
    on_images: Callable[[int], None],
) -> ScoringWorker:
    """See how much the model's features vary over the pool, and return what scores it."""
    config, batch_size = config_of(manifest), batch_size_of(manifest)
    predictor = Predictor(model, config.scaling)
    pixel_range = find_pixel_range(folder, manifest, predictor)
    local_features = None
    calibration = None
    if query.focus is not None:
        local_features = make_local_features(model, config.scaling, config.layers)
        n_listed = len(source.listing.images)
        shuffled = np.random.default_rng(config.seed).permutation(n_listed).tolist()
        batches = source.batches(shuffled, min(batch_size, CALIBRATION_IMAGES))
        calibration = _calibration(search, batches, local_features, pixel_range)
    return ScoringWorker(
        search,
        source,
        pixel_range,
        predictor,
        rule_of(manifest),
        Comparison(query, calibration),
        local_features,
        batch_size,
        on_images,
    )


def _calibration(
    search: RunFolder,
    batches: Iterable[Batch],
    local_features: LocalFeatures,
    pixel_range: tuple[float, float],
) -> Calibration:
    """Measure, once, how much each channel varies over images drawn from the pool."""
    if not search.table_path(_CALIBRATION).is_file():
        seen = (local_features(in_range(pixels, pixel_range)) for _, pixels in batches)
        measured = calibrate(seen, CALIBRATION_IMAGES)
        search.write_table(_CALIBRATION, pd.DataFrame(vars(measured)))
    stored = search.read_table(_CALIBRATION)
    return Calibration(stored["mean"].to_numpy(), stored["deviation"].to_numpy())


def _rank(
    search: RunFolder, listing: Listing, class_names: Sequence[str], top: int
) -> pd.DataFrame:
    """Return the images most like the target, ties in the order of their paths."""
    scored = pd.concat(search.iter_shards(STAGE), ignore_index=True)
    likeness = combine(scored["place"].to_numpy(), scored["whole"].to_numpy())
    first = np.argsort(-likeness, kind="stable")[:top]
    chosen = scored.iloc[first].reset_index(drop=True)
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(chosen) + 1),
            "path": listing.images["path"].to_numpy()[chosen["image_id"]],
            "likeness": likeness[first],
            "place": chosen["place"],
            "whole": chosen["whole"],
            "predicted_class": [class_names[y_pred] for y_pred in chosen["y_pred"]],
            "p": chosen["p_pred"],
            "image_id": chosen["image_id"],
            "top": chosen["top"],
            "left": chosen["left"],
        }
    )


def _make_sheet(
    found: Found,
    ranked: pd.DataFrame,
    folder: RunFolder,
    manifest: dict[str, Any],
    query: Query,
    source: FileSource,
) -> Sheet:
    """Put together the contact sheet, with the pictures as the model sees them."""
    target, program = query.target, manifest["program"]
    pictures = {
        image_id: _picture(pixels[..., ::-1])
        for ids, batch in source.batches(sorted(ranked["image_id"]), _PICTURES_AT_ONCE)
        for image_id, pixels in zip(ids.tolist(), batch.numpy(), strict=True)
    }
    root = source.listing.root
    return Sheet(
        program=f"{program['name']} {program['version']}",
        model_name=manifest["model"]["name"],
        pool_name="" if root is None else root.resolve().name,
        target_id=target["id"],
        title=target["title"],
        text=target["text"],
        n_images=found.n_images,
        n_unreadable=found.n_unreadable,
        notes=found.notes,
        examples=_examples(folder, query.image_ids[:_EXAMPLES]),
        hits=tuple(_hit(row, pictures.get(row["image_id"])) for row in records(ranked)),
    )


def _hit(row: dict[str, Any], picture: Picture | None) -> Hit:
    has_place = picture is not None and not np.isnan(row["place"])
    return Hit(
        rank=row["rank"],
        path=row["path"],
        likeness=row["likeness"],
        predicted_class=row["predicted_class"],
        p=row["p"],
        picture=picture,
        place=(row["left"], row["top"]) if has_place else None,
    )


def _examples(folder: RunFolder, image_ids: Sequence[int]) -> tuple[Picture, ...]:
    """Return pictures of the target's images, in their order, as far as the run has kept them."""
    kept = {
        image_id: _picture(decode_picture(jpeg))
        for shard in folder.iter_shards("thumbnails", ["image_id", "jpeg"])
        for image_id, jpeg in shard.itertuples(index=False, name=None)
        if image_id in image_ids
    }
    return tuple(kept[image_id] for image_id in image_ids if image_id in kept)


def _picture(bgr: np.ndarray) -> Picture:
    """Return pixels of 0 to 255, of shape (height, width, 1 or 3), as a small JPEG."""
    height, width = fit_into(bgr.shape[:2], PICTURE_SIDE)
    whole = np.clip(bgr, 0, 255).round().astype(np.uint8)
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return Picture(encode_jpeg(small), width, height)
