"""The matrix of a few classes, of many, and the list of confusions: every image is in one cell."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from report_fixture import Sizes, write_run
from report_html import read_page

from audit.predict.confusion import confusion_table, count_cells
from audit.report.pages import make_environment
from audit.report.run_data import read_run
from audit.report.views import confusion


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("confusion"), explained=False))


def with_cells(data, matrix):
    """Return the run with this confusion matrix, int of shape (n_classes, n_classes), rows true."""
    matrix = np.asarray(matrix)
    n_classes = len(matrix)
    y_true, y_pred = (places.ravel() for places in np.indices(matrix.shape))
    counts = matrix.ravel()
    cells = count_cells(np.repeat(y_true, counts), np.repeat(y_pred, counts), n_classes)
    right = matrix.diagonal()
    classes = pd.DataFrame(
        {
            "class": range(n_classes),
            "support": matrix.sum(axis=1),
            "tp": right,
            "fp": matrix.sum(axis=0) - right,
        }
    )
    return dataclasses.replace(
        data,
        class_names=tuple(f"class {n}" for n in range(n_classes)),
        confusion=confusion_table(cells, n_classes),
        classes=classes,
    )


def counts_of(row):
    return [cell.count for cell in row.cells]


def test_a_whole_matrix_repeats_every_cell_and_its_rows_sum_to_support(data):
    page = confusion.confusion_page(with_cells(data, [[5, 2, 0], [0, 7, 1], [0, 0, 0]]))
    matrix = page.matrix
    assert matrix.is_whole
    assert [counts_of(row) for row in matrix.rows] == [[5, 2, 0], [0, 7, 1], [0, 0, 0]]
    assert [row.support for row in matrix.rows] == [7, 8, 0]
    assert [cell.share for cell in matrix.rows[0].cells] == [5 / 7, 2 / 7, 0]
    assert [cell.share for cell in matrix.rows[2].cells] == [None] * 3
    assert [cell.kind for cell in matrix.rows[1].cells] == ["wrong", "right", "wrong"]
    hrefs = [cell.href for row in matrix.rows for cell in row.cells if cell.href]
    assert hrefs == ["errors.html#true=0&predicted=1", "errors.html#true=1&predicted=2"]
    assert [header.href for header in matrix.columns][1] == "errors.html#predicted=1"


def test_shares_of_a_matrix_are_the_stored_ones(data):
    cells = confusion.confusion_page(data).matrix.rows
    for row in data.confusion.to_dict("records"):
        cell = cells[row["y_true"]].cells[row["y_pred"]]
        assert (cell.count, cell.share) == (row["count"], row["share"])


def test_others_are_put_together_so_that_rows_still_sum_to_support(data, monkeypatch):
    # Five classes, of which two true and two predicted ones are named.
    #          0  1  2  3  4
    matrix = [[9, 6, 1, 0, 2],  # 0: 6 are called 1, the most frequent confusion
              [0, 8, 0, 0, 1],
              [0, 4, 7, 5, 0],  # 2: 5 are called 3, the next; both sides are full now
              [3, 0, 0, 6, 0],  # 3 called 0 does not fit any more
              [1, 1, 1, 0, 2]]  # fmt: skip
    monkeypatch.setattr(confusion, "MAX_WHOLE", 4)
    monkeypatch.setattr(confusion, "MAX_SIDE", 2)
    found = confusion.confusion_page(with_cells(data, matrix)).matrix
    assert not found.is_whole
    assert [header.name for header in found.columns] == ["class 1", "class 3", None]
    assert [row.header.name for row in found.rows] == ["class 0", "class 2", None]
    assert (found.columns[-1].n_classes, found.rows[-1].header.n_classes) == (3, 3)
    assert counts_of(found.rows[0]) == [9, 6, 0, 3]  # right, as 1, as 3, as 2 or 4
    assert counts_of(found.rows[1]) == [7, 4, 5, 0]
    # Classes 1, 3 and 4: 16 right; 1 called 1 (of class 4); none called 3; 3 + 1 + 1 + 1 elsewhere.
    assert counts_of(found.rows[2]) == [16, 1, 0, 6]
    assert [row.support for row in found.rows] == [18, 16, 23]
    assert all(sum(counts_of(row)) == row.support for row in found.rows)
    # A named column holds every image that is wrongly called so.
    assert [sum(row.cells[n].count for row in found.rows) for n in (1, 2)] == [11, 5]
    assert [cell.href for cell in found.rows[2].cells] == [None] * 4


def test_the_diagonal_inside_a_named_block_is_empty(data, monkeypatch):
    monkeypatch.setattr(confusion, "MAX_WHOLE", 1)
    found = confusion.confusion_page(with_cells(data, [[4, 3, 0], [2, 5, 0], [0, 0, 6]])).matrix
    assert [counts_of(row) for row in found.rows] == [[4, 0, 3, 0], [5, 2, 0, 0], [6, 0, 0, 0]]
    assert [row.cells[place].kind for row, place in zip(found.rows, (1, 2), strict=False)] == [
        "elsewhere",
        "elsewhere",
    ]


def test_rows_sum_to_support_for_any_run_with_many_classes(data):
    rng = np.random.default_rng(3)
    matrix = rng.poisson(0.05, (60, 60)) + np.diag(rng.poisson(20, 60))
    found = confusion.confusion_page(with_cells(data, matrix)).matrix
    assert len(found.rows) == len(found.columns) == confusion.MAX_SIDE + 1
    assert all(sum(counts_of(row)) == row.support for row in found.rows)
    assert sum(row.support for row in found.rows) == matrix.sum()
    wrongly = matrix.sum(axis=0) - matrix.diagonal()
    for place, header in enumerate(found.columns[:-1], start=1):
        n = int(header.name.split()[1])
        assert sum(row.cells[place].count for row in found.rows) == wrongly[n]
    most = matrix - np.diag(matrix.diagonal())
    assert most.max() in [cell.count for row in found.rows for cell in row.cells[1:-1]]


def test_many_classes_without_an_error_have_no_matrix(data):
    page = confusion.confusion_page(with_cells(data, np.diag(np.full(30, 4))))
    assert (page.matrix, page.pairs, page.n_pairs, page.data) == (None, (), 0, None)


def test_confusions_are_listed_the_most_frequent_first(data):
    page = confusion.confusion_page(with_cells(data, [[5, 2, 0], [2, 7, 1], [4, 0, 9]]))
    rows = [(pair.true_name, pair.predicted_name, pair.count) for pair in page.pairs]
    expected = [(2, 0, 4), (0, 1, 2), (1, 0, 2), (1, 2, 1)]
    assert rows == [(f"class {n}", f"class {m}", count) for n, m, count in expected]
    assert page.n_pairs == page.n_listed == 4
    assert page.data is None


def test_more_confusions_than_the_table_holds_come_as_data_to_search(data, monkeypatch):
    monkeypatch.setattr(confusion, "MAX_TABLE", 2)
    monkeypatch.setattr(confusion, "MAX_LISTED", 3)
    run = with_cells(data, [[5, 2, 0], [2, 7, 1], [4, 0, 9]])
    page = confusion.confusion_page(run)
    assert (len(page.pairs), page.n_listed, page.n_pairs) == (2, 3, 4)
    assert page.data["true"] == [2, 0, 1]
    assert page.data["predicted"] == [0, 1, 0]
    assert page.data["count"] == [4, 2, 2]
    assert page.data["support"] == {0: 7, 1: 10, 2: 13}
    stored = run.confusion.set_index(["y_true", "y_pred"]).loc[(2, 0)]
    assert page.data["low"][0] == pytest.approx(stored["share_low"], abs=1e-6)
    assert page.data["high"][0] == pytest.approx(stored["share_high"], abs=1e-6)


def written(run, folder):
    page = confusion.confusion_page(run)
    template = make_environment().get_template("confusion.html")
    path = folder / "confusion.html"
    path.write_text(template.render(page=page, site=page.site, root=""), encoding="utf-8")
    return read_page(path)


def test_without_a_script_the_first_hundred_are_a_table(data, tmp_path):
    rng = np.random.default_rng(4)
    run = with_cells(data, rng.poisson(0.2, (40, 40)))
    page = written(run, tmp_path)
    assert page.problems == []
    table = [e for e in page.all("th", scope="row") if "template" not in e.inside]
    assert len(table) == confusion.MAX_SIDE + 1 + confusion.MAX_TABLE
    (chunk,) = page.all("script", id="confusion-data")
    assert len(json.loads(chunk.text)["count"]) == len(confusion.sorted_confusions(run)) > 100


def test_the_page_of_a_thousand_classes_stays_small(data, tmp_path):
    rng = np.random.default_rng(5)
    matrix = np.zeros((1000, 1000), np.int64)
    np.add.at(matrix, (rng.integers(0, 1000, 50_000), rng.integers(0, 1000, 50_000)), 1)
    page = written(with_cells(data, matrix), tmp_path)
    assert page.path.stat().st_size < 500_000


def test_hostile_names_are_inert(tmp_path):
    names = ["</script><b>", '" onload="x', "{{ 7 }}"] + [f"\u202e class {n}" for n in range(30)]
    folder = write_run(tmp_path / "run", names, Sizes(900, 240, 2), explained=False)
    run = read_run(folder)
    page = written(run, tmp_path)
    assert page.problems == []
    (chunk,) = page.all("script", id="confusion-data")
    stored = json.loads(chunk.text)["names"]
    assert stored["0"] == "</script><b>"
    assert stored["5"] == "\\u202e class 2"
    assert not page.all("b")
