"""Fixtures that many test modules share."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser_tab
import drawn_set
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # Each worker has a core; more threads get in their way.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and models, which are not part of the project."""
    if not SHARED_DATA.is_dir():
        reason = f"the real data is not at {SHARED_DATA}"
        if os.environ.get("AUDIT_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED_DATA


# explain and pipeline


@pytest.fixture
def float64() -> Iterator[None]:
    """Build Keras models in double precision, where two ways to one number agree to 1e-9."""
    import keras

    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class with drawn images, and one file that is not an image."""
    folder = drawn_set.save_set(tmp_path_factory.mktemp("drawn") / "val")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def drawn_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the model that the drawn images fool."""
    return drawn_set.save_model(tmp_path_factory.mktemp("model") / "corners.keras")


@pytest.fixture(scope="session")
def drawn_run(
    drawn_data: Path, drawn_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run over the drawn images, in several shards. Only look at it, or copy it."""
    import audit

    out = tmp_path_factory.mktemp("run") / "drawn"
    audit.run(drawn_model, drawn_data, out, progress=False, **drawn_set.SHARDS)
    return out


# object stores


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An empty folder in an object store that is in this process's memory."""
    import fsspec

    from audit.places import place

    folder = place(f"memory://{uuid.uuid4().hex}/deep")
    yield folder
    store = fsspec.filesystem("memory")
    if store.exists(folder.key):
        store.rm(folder.key, recursive=True)


# the report in a real browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium is installed"
        if os.environ.get("AUDIT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found, args=list(browser_tab.ARGUMENTS)
        )
        yield running
        running.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., browser_tab.Tab]]:
    """A function that opens a tab over a report; whatever goes wrong in it fails the test."""
    yield from browser_tab.open_tabs(browser)
