"""The columns of the run folder's Parquet files, where they are always the same, and their words.

The other tables' columns follow from their frame, or stand beside the code that makes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

FOCUS_STAGE = "focus_embeddings"
"""The shards that hold what is under each fused map."""

CAUSAL, NOT_SHOWN, TOO_FEW, NOT_TESTED = "causal", "not shown", "too few", "not tested"
"""The verdicts on a pattern; `audit.diagnose.causes` says what each of them takes."""

SUSPECTED, OTHER_LABEL, SAME_LABEL = (
    "suspected label",
    "duplicate with another label",
    "duplicate",
)
"""The kinds of rows in `label_issues.parquet`."""

UNREADABLE, UNDEFINED, SKIPPED = "unreadable", "undefined", "skipped"
"""The kinds of rows in `unreadable.parquet`: no picture could be had of the file; the model said
nothing of the picture; the file was not asked for."""
UNDEFINED_SCORES = "the model's output for it is not a finite number"
"""The reason for `UNDEFINED`."""

INSIDE = ("object_share", "energy_inside", "pointing")
"""Columns of `focus.parquet` that only a run with masks or boxes has: the object's share of the
pixels, which an even map would have inside; the share of the map's sum inside it; whether the
hottest pixel is inside. All from 0 to 1, NaN where the object is not known; see
`audit.explain.inside`."""

SCHEMAS = {
    "objects": pa.schema(
        [
            ("image_id", pa.int64()),
            ("kind", pa.string()),
            ("reason", pa.string()),
            ("object_share", pa.float64()),
        ]
    ),
    "unreadable": pa.schema([(name, pa.string()) for name in ("path", "kind", "reason")]),
    "explanations": pa.schema(
        [
            ("image_id", pa.int64()),
            ("explained_class", pa.int32()),
            ("layer", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("peak", pa.float32()),
            ("cam", pa.binary()),
        ]
    ),
    "thumbnails": pa.schema(
        [
            ("image_id", pa.int64()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("jpeg", pa.binary()),
        ]
    ),
    "consensus": pa.schema(
        [
            ("layer", pa.string()),
            ("explained_class", pa.int32()),
            ("n_images", pa.int32()),
            ("reliability", pa.float32()),
            ("is_new", pa.bool_()),
            ("channels", pa.list_(pa.float32())),
        ]
    ),
    "layers": pa.schema(
        [
            ("layer", pa.string()),
            ("path", pa.string()),
            ("kind", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("channels", pa.int32()),
            ("stored_height", pa.int32()),
            ("stored_width", pa.int32()),
            ("stage", pa.int32()),
            ("order", pa.int32()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
}
"""Columns of the tables whose columns are always the same; the others follow from their frame."""


def predictions_schema(n_classes: int) -> pa.Schema:
    """Columns of a predictions shard; `scores` holds `n_classes` probabilities in class order."""
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("y_pred", pa.int32()),
            ("p_true", pa.float32()),
            ("p_pred", pa.float32()),
            ("margin", pa.float32()),
            ("scores", pa.list_(pa.float32(), n_classes)),
        ]
    )


def embeddings_schema(width: int) -> pa.Schema:
    """Columns of an embeddings shard; `embedding` is the input of the classifier head."""
    return pa.schema([("image_id", pa.int64()), ("embedding", pa.list_(pa.float32(), width))])


def make_frame(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """Turn rows into a frame whose columns have their types even without rows.

    Lists and bytes stay Arrow's own, so that they are written as they are.
    """
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).to_pandas(
        types_mapper=_keep_type
    )
    return frame


def _keep_type(kind: pa.DataType) -> pd.ArrowDtype | None:
    keeps = pa.types.is_nested(kind) or pa.types.is_binary(kind)
    return pd.ArrowDtype(kind) if keeps else None


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
