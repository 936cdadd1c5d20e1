"""Who is taken for whom: the matrix, and the list of confusions.

In: the cells of `confusion.parquet`. With many classes the matrix shows the most frequent
confusions and puts all others together, so that every row still adds up to the images of its class.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.formats import legible
from audit.report.run_data import RunData
from audit.report.views.parts import Pair, Site, gallery_href, make_site, plain_estimate
from audit.schemas import records

MAX_WHOLE = 20
"""Up to so many classes the matrix is drawn whole."""

MAX_SIDE = 12
"""A matrix that is not whole has at most so many true and so many predicted classes by name."""

MAX_TABLE = 100
"""So many confusions are in the table without a script; with more, a script searches them."""

MAX_LISTED = 3000
"""So many confusions can be searched."""

N_SHADES = 10


@dataclass(frozen=True)
class Header:
    """A row or column of the matrix: a class, or without a name `n_classes` others together.

    `href` leads to the errors of the class, `None` if there is no single filter for them.
    """

    name: str | None
    n_classes: int
    href: str | None


@dataclass(frozen=True)
class Cell:
    """A count of the matrix and its share of the row's images, shaded 0..`N_SHADES` by it.

    `kind`: "right", "wrong", or "elsewhere" for the diagonal of a matrix that has its right answers
    in a column of their own. `href` leads to exactly these errors.
    """

    kind: str
    count: int
    share: float | None
    shade: int
    href: str | None = None


@dataclass(frozen=True)
class MatrixRow:
    """The images of one true class. Their cells add up to `support`."""

    header: Header
    support: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix, rows true.

    Of one that is not whole, a row has its right answers first, then a cell for each column, the
    last for all other predicted classes; the last row is that of all other true classes.
    """

    columns: tuple[Header, ...]
    rows: tuple[MatrixRow, ...]
    is_whole: bool


@dataclass(frozen=True)
class ConfusionPage:
    """The matrix and the list. `data` has the first `n_listed` of `n_pairs` confusions, to search.

    Without `data` all of them are `pairs`.
    """

    site: Site
    n_classes: int
    matrix: Matrix | None
    pairs: tuple[Pair, ...]
    n_pairs: int
    n_listed: int
    data: Mapping[str, Any] | None


def confusion_page(data: RunData) -> ConfusionPage:
    """Return the page of the confusions."""
    found = sorted_confusions(data)
    return ConfusionPage(
        site=make_site(data),
        n_classes=len(data.class_names),
        matrix=whole_matrix(data) if len(data.class_names) <= MAX_WHOLE else leading_matrix(data),
        pairs=confusion_pairs(data, MAX_TABLE),
        n_pairs=len(found),
        n_listed=min(len(found), MAX_LISTED),
        data=_search_data(data, found.head(MAX_LISTED)) if len(found) > MAX_TABLE else None,
    )


def sorted_confusions(data: RunData) -> pd.DataFrame:
    """Return the cells off the diagonal that have images, the most frequent first."""
    cells = data.confusion
    wrong = cells[(cells["y_true"] != cells["y_pred"]) & (cells["count"] > 0)]
    return wrong.sort_values(
        ["count", "y_true", "y_pred"], ascending=[False, True, True], ignore_index=True
    )


def confusion_pairs(data: RunData, most: int) -> tuple[Pair, ...]:
    """Return the most frequent confusions with their share of the true class."""
    return tuple(_pair(data, row) for row in records(sorted_confusions(data).head(most)))


def cell_of(data: RunData, y_true: int, y_pred: int) -> Pair:
    """Return one confusion as stored, be it empty; few classes have all their cells stored."""
    cells = data.confusion
    found = cells[(cells["y_true"] == y_true) & (cells["y_pred"] == y_pred)]
    return _pair(data, records(found)[0])


def _pair(data: RunData, row: Mapping[str, Any]) -> Pair:
    y_true, y_pred = int(row["y_true"]), int(row["y_pred"])
    return Pair(
        true_name=data.class_names[y_true],
        predicted_name=data.class_names[y_pred],
        count=int(row["count"]),
        share=plain_estimate(row["share"], row["share_low"], row["share_high"]),
        href=gallery_href(true=y_true, predicted=y_pred),
    )


def whole_matrix(data: RunData) -> Matrix:
    """Return the matrix of all classes."""
    counts, support = _counts(data), _by_class(data, "support")
    classes = range(len(data.class_names))
    return Matrix(
        columns=tuple(Header(data.class_names[n], 1, gallery_href(predicted=n)) for n in classes),
        rows=tuple(
            MatrixRow(
                Header(data.class_names[n], 1, gallery_href(true=n)),
                support[n],
                tuple(_cell(n, m, counts.get((n, m), 0), support[n]) for m in classes),
            )
            for n in classes
        ),
        is_whole=True,
    )


def leading_matrix(data: RunData) -> Matrix | None:
    """Return the matrix of the classes in the most frequent confusions, or `None` without any."""
    y_true, y_pred = _leading_classes(sorted_confusions(data))
    if not y_true:
        return None
    counts = _counts(data)
    support, right = _by_class(data, "support"), _by_class(data, "tp")
    wrongly = _by_class(data, "fp")
    n_classes = len(data.class_names)
    rows = []
    for n in y_true:
        named = [counts.get((n, m), 0) if m != n else 0 for m in y_pred]
        cells = [
            _cell(n, m, count, support[n]) if m != n else Cell("elsewhere", 0, None, 0)
            for m, count in zip(y_pred, named, strict=True)
        ]
        header = Header(data.class_names[n], 1, gallery_href(true=n))
        rows.append(_leading_row(header, support[n], right[n], cells, sum(named)))
    named = [wrongly[m] - sum(counts.get((n, m), 0) for n in y_true if n != m) for m in y_pred]
    others = [n for n in range(n_classes) if n not in y_true]
    support_of_others = sum(support[n] for n in others)
    rows.append(
        _leading_row(
            Header(None, len(others), None),
            support_of_others,
            sum(right[n] for n in others),
            [_rest(count, support_of_others) for count in named],
            sum(named),
        )
    )
    columns = [Header(data.class_names[m], 1, gallery_href(predicted=m)) for m in y_pred]
    columns.append(Header(None, n_classes - len(y_pred), None))
    return Matrix(tuple(columns), tuple(rows), is_whole=False)


def _leading_row(
    header: Header, support: int, right: int, cells: Sequence[Cell], n_named: int
) -> MatrixRow:
    share = right / support if support else None
    first = Cell("right", right, share, _shade(share))
    return MatrixRow(header, support, (first, *cells, _rest(support - right - n_named, support)))


def _leading_classes(confusions: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Return the true and the predicted classes of the most frequent confusions, in class order.

    A confusion joins, the most frequent first, if its two classes still have room.
    """
    y_true: set[int] = set()
    y_pred: set[int] = set()
    for n, m in zip(confusions["y_true"].tolist(), confusions["y_pred"].tolist(), strict=True):
        if len(y_true | {n}) <= MAX_SIDE and len(y_pred | {m}) <= MAX_SIDE:
            y_true.add(n)
            y_pred.add(m)
    return sorted(y_true), sorted(y_pred)


def _cell(n: int, m: int, count: int, support: int) -> Cell:
    share = count / support if support else None
    if n == m:
        return Cell("right", count, share, _shade(share))
    href = gallery_href(true=n, predicted=m) if count else None
    return Cell("wrong", count, share, _shade(share), href)


def _rest(count: int, support: int) -> Cell:
    """Return a cell in which several classes are together; no filter shows exactly these."""
    share = count / support if support else None
    return Cell("wrong", count, share, _shade(share))


def _counts(data: RunData) -> dict[tuple[int, int], int]:
    """Return the images of each cell by (true, predicted)."""
    cells = data.confusion
    columns = (cells[name].tolist() for name in ("y_true", "y_pred", "count"))
    return {(n, m): count for n, m, count in zip(*columns, strict=True)}


def _by_class(data: RunData, name: str) -> dict[int, int]:
    """Return a count of `class_metrics.parquet` by class."""
    pairs = zip(data.classes["class"].tolist(), data.classes[name].tolist(), strict=True)
    return {n: int(value) for n, value in pairs}


def _shade(share: float | None) -> int:
    """Return 0 for nothing, else 1..N_SHADES; the root lets rare confusions be seen."""
    return math.ceil(math.sqrt(share) * N_SHADES) if share else 0


def _search_data(data: RunData, found: pd.DataFrame) -> dict[str, Any]:
    """Return confusions in columns, names and supports once; bounds to six decimals."""
    classes = sorted({*found["y_true"].tolist(), *found["y_pred"].tolist()})
    support = _by_class(data, "support")
    return {
        "names": {n: legible(data.class_names[n]) for n in classes},
        "support": {n: support[n] for n in classes},
        "true": found["y_true"].tolist(),
        "predicted": found["y_pred"].tolist(),
        "count": found["count"].tolist(),
        "low": found["share_low"].round(6).tolist(),
        "high": found["share_high"].round(6).tolist(),
    }
