"""The search: it finds what was drawn, goes on where it stopped, and accounts for every file."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pandas as pd
import pytest
from report_html import read_page
from search_fixture import (
    N_POOL,
    N_RED,
    damage,
    draw_pool,
    make_run,
    paths_of,
    red_square,
)

from audit.errors import DatasetError, ModelError, RunFolderError
from audit.run_folder import RunFolder
from audit.search import find
from audit.search.find import Found, find_images
from audit.search.scoring import score_shard


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any, drawn_model: Path, drawn_data: Path) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("search") / "run", drawn_model, drawn_data)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    draw_pool(tmp_path / "pool")
    return tmp_path / "pool"


@pytest.fixture
def search(run: RunFolder, pool: Path, tmp_path: Path) -> Callable[..., Found]:
    def search(**options: Any) -> Found:
        options = {"top": N_RED, "out": tmp_path / "out", "progress": False} | options
        return find_images(options.pop("run", run.path), "T1", options.pop("pool", pool), **options)

    return search


def test_the_images_most_like_the_target_are_those_with_what_the_model_looked_at(
    search: Callable[..., Found], tmp_path: Path
):
    found = search()
    assert paths_of(found.table) == draw_pool(tmp_path / "again")
    assert found.table["rank"].tolist() == list(range(1, N_RED + 1))
    assert (np.diff(found.table["likeness"]) <= 0).all()
    assert found.table["likeness"].to_numpy() == pytest.approx(
        0.9 * found.table["place"] + 0.1 * found.table["whole"], abs=1e-6
    )
    assert (found.n_images, found.n_unreadable, found.n_skipped) == (N_POOL, 0, 0)
    assert found.notes == ()
    assert set(found.table["predicted_class"]) == {"right"}  # red speaks for it
    assert (found.table["p"] > 0.5).all()


def test_the_ring_lies_on_the_square(search: Callable[..., Found]):
    found = search()
    page = read_page(found.sheet_path)
    assert page.problems == []
    rings = page.all("circle")[::2]
    names = [element.text for element in page.all("bdi", cls="path")]
    assert names == found.table["path"].tolist()
    for path, ring in zip(names, rings, strict=True):
        top, left = red_square(int(Path(path).stem))
        x, y = float(ring.attributes["cx"]) / 32 * 64, float(ring.attributes["cy"]) / 32 * 48
        # The coarser features lie on a grid of 8 × 8: a place is 8 × 6 pixels of such an image.
        assert left - 8 <= x <= left + 18 + 8
        assert top - 6 <= y <= top + 14 + 6


def test_table_and_page_are_what_is_returned(search: Callable[..., Found]):
    found = search()
    read = pd.read_csv(found.csv_path)
    assert read.columns.tolist() == found.table.columns.tolist()
    assert read["path"].tolist() == found.table["path"].tolist()
    assert read["likeness"].to_numpy() == pytest.approx(found.table["likeness"], abs=1e-5)
    page = read_page(found.sheet_path)
    assert len(page.all("li", cls="hit")) == N_RED
    # Eight images of the target, and those that were found.
    assert len(page.all("img")) == drawn_set.N_FALSE_POSITIVES + N_RED
    assert page.all("h1")[0].text == "Collect red squares"


def test_files_that_cannot_be_read_are_counted_and_listed(search: Callable[..., Found], pool: Path):
    damage(pool / "a" / "broken.png")
    (pool / "empty.jpg").touch()
    (pool / "notes.txt").write_text("-")
    found = search()
    assert (found.n_images, found.n_unreadable, found.n_skipped) == (N_POOL + 2, 2, 1)
    listed = pd.read_csv(found.csv_path.with_name("unreadable.csv"))
    assert listed[["path", "kind"]].to_numpy().tolist() == [
        ["a/broken.png", "unreadable"],
        ["empty.jpg", "unreadable"],
        ["notes.txt", "skipped"],
    ]
    assert listed["reason"].tolist()[1] == "it is empty (0 bytes)"
    assert "2 of which could not be read" in found.sheet_path.read_text()
    assert "Files that were left out" in found.sheet_path.read_text()


def test_a_pool_of_broken_files_is_refused(search: Callable[..., Found], tmp_path: Path):
    damage(tmp_path / "broken" / "a.png")
    with pytest.raises(DatasetError, match="None of the 1 images of the pool could be read"):
        search(pool=tmp_path / "broken")


def test_a_search_that_was_stopped_goes_on_and_ends_the_same(
    search: Callable[..., Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = search(out=tmp_path / "whole")
    done = []

    def stopped(spec: Any, worker: Any) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(spec.index)
        return score_shard(spec, worker)

    with monkeypatch.context() as patch:
        patch.setattr(find, "score_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            search()
    first = tmp_path / "out" / "likeness" / "shard-000000.parquet"
    assert first.is_file() and not first.with_name("shard-000001.parquet").exists()
    before = first.stat().st_mtime_ns
    resumed = search()
    assert first.stat().st_mtime_ns == before
    for name in ("found.csv", "contact_sheet.html", "unreadable.csv", "calibration.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert resumed.table.equals(whole.table)


def test_a_torn_shard_is_done_again(search: Callable[..., Found], tmp_path: Path):
    expected = search().table
    shard = tmp_path / "out" / "likeness" / "shard-000001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    assert search().table.equals(expected)


def test_more_or_fewer_of_a_finished_search_need_no_model(
    drawn_model: Path, drawn_data: Path, search: Callable[..., Found], tmp_path: Path
):
    own = Path(shutil.copy(drawn_model, tmp_path / "own.keras"))
    run = make_run(tmp_path / "run", own, drawn_data)
    first = search(run=run.path)
    own.unlink()
    more = search(run=run.path, top=1000)
    assert len(more.table) == N_POOL
    assert more.table[:N_RED].equals(first.table)
    with pytest.raises(ModelError, match=r"The run's model is gone\. Received: no file at"):
        search(run=run.path, out=tmp_path / "new")
    assert search(run=run.path, out=tmp_path / "new", model=drawn_model).table.equals(first.table)


def test_the_batch_size_does_not_matter(
    drawn_model: Path, drawn_data: Path, search: Callable[..., Found], tmp_path: Path
):
    run = make_run(tmp_path / "run", drawn_model, drawn_data, batch_size=3, shard_size=7)
    one, other = search(), search(run=run.path, out=tmp_path / "other")
    assert other.table["path"].tolist() == one.table["path"].tolist()
    assert other.table["likeness"].to_numpy() == pytest.approx(one.table["likeness"], abs=1e-5)


def test_by_default_a_search_is_kept_in_the_run(
    drawn_model: Path, drawn_data: Path, search: Callable[..., Found], tmp_path: Path
):
    run = make_run(tmp_path / "run", drawn_model, drawn_data)
    found = search(run=run.path, out=None)
    assert found.csv_path == run.path / "find" / "T1" / "found.csv"
    assert RunFolder.open(run.path).read_predictions().shape[0] == drawn_set.N_IMAGES


def test_without_a_focus_whole_images_are_compared_and_it_is_said(
    drawn_model: Path, drawn_data: Path, search: Callable[..., Found], tmp_path: Path
):
    run = make_run(tmp_path / "run", drawn_model, drawn_data, focus=False)
    found = search(run=run.path)
    assert found.table["place"].isna().all()
    assert (found.table["likeness"] == found.table["whole"]).all()
    (note,) = found.notes
    assert note.startswith("Only whole images were compared")
    page = read_page(found.sheet_path)
    assert page.all("p", cls="note")[0].text == note
    assert not page.all("circle")
    # The drawn model's embedding is red and blue: as a whole, too, red images are the most alike.
    assert paths_of(found.table) == draw_pool(tmp_path / "again")


def test_another_pool_is_refused(search: Callable[..., Found], pool: Path):
    search()
    drawn_set.save_image(pool / "new.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RunFolderError, match="another value of the pool"):
        search()


def test_images_of_other_kinds_are_read_as_the_run_reads_them(
    search: Callable[..., Found], tmp_path: Path
):
    for name, channels in (("grey.png", 1), ("colour.png", 3)):
        drawn_set.save_image(tmp_path / "kinds" / name, np.full((7, 300, channels), 200, np.uint8))
    found = search(pool=tmp_path / "kinds")
    assert len(found.table) == 2


def test_a_model_in_memory_has_to_be_given_or_saved_first(
    drawn_data: Path, search: Callable[..., Found], tmp_path: Path
):
    model = drawn_set.corner_model()
    run = make_run(tmp_path / "run", model, drawn_data)
    with pytest.raises(ModelError, match="does not say where its model is"):
        search(run=run.path)
    live = search(run=run.path, model=model)
    model.save(tmp_path / "saved.keras")
    saved = search(run=run.path, out=tmp_path / "2", model=tmp_path / "saved.keras")
    assert saved.table.equals(live.table)
    with pytest.raises(ModelError, match="is not the model of the run"):
        search(run=run.path, out=tmp_path / "3", model=drawn_set.corner_model("sigmoid"))


@pytest.mark.slow
def test_photographs_with_bars_are_found_among_those_without(shared_data: Path, tmp_path: Path):
    """The target: cats that drawn bars made dogs. The pool: dogs, of which one in ten has bars."""
    data = shared_data / "planted_bars"
    model = data / "planted_bars_model.keras"
    run = make_run(tmp_path / "run", model, data / "val", batch_size=32, shard_size=1024)
    truth = pd.read_csv(data / "truth.csv")
    dogs = truth[truth["class"] == "dogs"]
    barred = dogs.loc[dogs["barred"] == 1, "file"][:12]
    (tmp_path / "pool").mkdir()
    for name in [*barred, *dogs.loc[dogs["barred"] == 0, "file"][:108]]:
        shutil.copy(data / "val" / name, tmp_path / "pool")
    found = find_images(run.path, "T1", tmp_path / "pool", top=12, progress=False)
    hits = set(found.table["path"]) & {Path(name).name for name in barred}
    assert len(hits) >= 10  # by chance, 1.2
