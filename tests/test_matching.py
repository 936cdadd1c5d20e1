"""The same images and classes in several runs, by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from compare_fixture import binary_scores, write_run

from audit.compare.matching import MatchedRuns, match_runs, open_compared
from audit.errors import RunFolderError

Y = [0, 0, 1, 1]
P = [0.1, 0.7, 0.8, 0.4]


def matched(*paths: Path) -> MatchedRuns:
    return match_runs([open_compared(path, path.name) for path in paths])


def test_the_same_paths_are_the_same_images(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P), paths=["p", "q", "r", "s"])
    b = write_run(
        tmp_path / "b",
        [1, 0, 1],
        binary_scores([0.9, 0.2, 0.3]),
        paths=["s", "q", "t"],
        contents=[3, 1, 9],
    )
    images = matched(a, b)
    assert images.paths.tolist() == ["q", "s"]
    assert images.image_ids.tolist() == [[1, 3], [1, 0]]
    assert images.y_true.tolist() == [0, 1]
    assert images.y_pred.tolist() == [[1, 0], [0, 1]]
    assert images.scores[:, :, 1] == pytest.approx(np.array([[0.7, 0.4], [0.2, 0.9]]))
    assert images.is_right.tolist() == [[False, False], [True, True]]
    assert images.positive == 1
    counts = images.counts[1]
    assert (counts.n_images, counts.n_by_path, counts.n_by_content) == (3, 2, 0)


def test_images_that_were_moved_are_found_by_their_content(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[5, 6, 7, 8])
    moved = [f"new/{name}" for name in "wxyz"]
    b = write_run(tmp_path / "b", Y[::-1], binary_scores(P), paths=moved, contents=[8, 7, 6, 99])
    images = matched(a, b)
    assert images.image_ids.tolist() == [[1, 2, 3], [2, 1, 0]]
    assert (images.counts[1].n_by_path, images.counts[1].n_by_content) == (0, 3)
    assert images.counts[1].knows_content


def test_paths_that_were_given_to_other_images_do_not_match(tmp_path: Path):
    # The first file was removed, and the others took the names before theirs.
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[1, 2, 3, 4])
    b = write_run(tmp_path / "b", Y[1:], binary_scores(P[1:]), contents=[2, 3, 4])
    images = matched(a, b)
    assert images.image_ids.tolist() == [[1, 2, 3], [0, 1, 2]]
    counts = images.counts[1]
    assert (counts.n_by_path, counts.n_by_content, counts.n_replaced) == (0, 3, 3)


def test_copies_are_not_matched_by_content(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[1, 1, 2, 3])
    moved = [f"new/{name}" for name in "wxyz"]
    b = write_run(tmp_path / "b", Y, binary_scores(P), paths=moved, contents=[1, 4, 2, 2])
    with pytest.raises(RunFolderError, match="no image in common"):
        matched(a, b)
    c = write_run(tmp_path / "c", Y, binary_scores(P), paths=moved, contents=[1, 4, 2, 3])
    counts = matched(a, c).counts[1]
    assert (counts.n_by_content, counts.n_ambiguous) == (2, 1)


@pytest.mark.parametrize("reason", ["no properties", "another size"])
def test_where_contents_cannot_be_compared_the_path_decides(tmp_path: Path, reason: str):
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[1, 2, 3, 4])
    contents = [] if reason == "no properties" else [1, 2, 3, 4]
    size = {"height": 9, "width": 8, "channels": 3}
    paths = ["0000.png", "0001.png", "else.png", "other.png"]
    b = write_run(tmp_path / "b", Y, binary_scores(P), paths=paths, contents=contents, input=size)
    counts = matched(a, b).counts[1]
    assert (counts.n_by_path, counts.n_by_content, counts.knows_content) == (2, 0, False)


def test_the_size_of_a_file_tells_it_from_another_in_any_case(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[1, 2, 3, 4])
    size = {"height": 9, "width": 8, "channels": 3}
    b = write_run(tmp_path / "b", Y, binary_scores(P), contents=[1, 2, 3, 5], input=size)
    counts = matched(a, b).counts[1]
    assert (counts.n_by_path, counts.n_replaced) == (3, 1)


def test_classes_are_matched_by_name(tmp_path: Path):
    names = ("ant", "bee", "cow")
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])
    a = write_run(tmp_path / "a", [0, 1, 2], scores, class_names=names)
    # cow, ant, bee: the columns of a class are those of its name.
    b = write_run(
        tmp_path / "b", [1, 2, 0], scores[:, [2, 0, 1]], class_names=("cow", "ant", "bee")
    )
    images = matched(a, b)
    assert images.y_true.tolist() == [0, 1, 2]
    assert images.y_pred[0].tolist() == images.y_pred[1].tolist() == [0, 1, 0]
    assert images.scores[0].tolist() == images.scores[1].tolist()
    assert images.class_order(1).tolist() == [2, 0, 1]
    assert images.positive is None


def test_another_label_leaves_an_image_out(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P))
    b = write_run(tmp_path / "b", [0, 1, 1, 1], binary_scores(P))
    images = matched(a, b)
    assert images.image_ids[0].tolist() == [0, 2, 3]
    assert images.counts[1].n_relabelled == 1


def test_a_series_has_the_images_of_all(tmp_path: Path):
    runs = [
        write_run(
            tmp_path / name, [0, 0], binary_scores([0.1, 0.2]), paths=paths, contents=paths_of
        )
        for name, paths, paths_of in (
            ("a", ["p", "q"], [1, 2]),
            ("b", ["q", "r"], [2, 3]),
            ("c", ["p", "q"], [1, 2]),
        )
    ]
    images = matched(*runs)
    assert images.paths.tolist() == ["q"]
    assert images.image_ids.tolist() == [[1], [0], [1]]
    assert [count.n_by_path for count in images.counts] == [2, 1, 2]


def test_a_run_is_matched_with_itself(tmp_path: Path):
    a = write_run(tmp_path / "a", Y, binary_scores(P), contents=[1, 1, 1, 2])
    images = matched(a, a)
    assert images.image_ids.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "running"}, "is not finished. Received: a run with the status 'running'"),
        ({"format_version": 99}, "has another format"),
        ({"class_names": ["cats", "\u202ecows"]}, "the first alone dogs, in the other alone cows"),
        ({"paths": list("wxyz"), "contents": [6, 7, 8, 9]}, "no image in common"),
        ({"contents": [6, 7, 8, 9]}, "4 have the same path but another content"),
        ({"y_true": [1, 1, 0, 0]}, "4 have another label"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changes: dict, message: str):
    a = write_run(tmp_path / "a", Y, binary_scores(P))
    options = {"y_true": Y} | changes
    b = write_run(tmp_path / "b", options.pop("y_true"), binary_scores(P), **options)
    with pytest.raises(RunFolderError, match=re.escape(message)) as caught:
        matched(a, b)
    assert str(caught.value).isprintable()


def test_many_other_classes_are_not_all_named(tmp_path: Path):
    scores = np.eye(8)
    a = write_run(tmp_path / "a", range(8), scores, class_names=[f"a{i}" for i in range(8)])
    b = write_run(tmp_path / "b", range(8), scores, class_names=[f"b{i}" for i in range(8)])
    with pytest.raises(RunFolderError, match="a0, a1, a2, a3, a4, 3 more, in the other alone b0"):
        matched(a, b)
