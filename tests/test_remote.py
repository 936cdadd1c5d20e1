"""An audit is opened anew from its files, as a worker on another machine does it."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_set
import numpy as np
import pytest

from audit.config import PLACES, make_config
from audit.engines import local
from audit.engines.quarantine import KILLS, SourceWithout
from audit.errors import ConfigError, RunFolderError
from audit.inputs import Inputs
from audit.run_folder import RunFolder
from audit.stages import explanation, prediction
from audit.stages.context import Context
from audit.stages.remote import Recipe, Site, check_can_be_sent, site_of


@pytest.fixture
def audit(drawn_model: Path, drawn_data: Path, drawn_run: Path, tmp_path: Path) -> Context:
    """A finished audit as its driver has it."""
    config = make_config(drawn_set.SHARDS)
    folder = RunFolder(shutil.copytree(drawn_run, tmp_path / "run"))
    inputs = Inputs(drawn_model, drawn_data, config)
    return Context(inputs, folder, config, False, folder.read_manifest())


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def test_what_is_sent_is_small_and_comes_back_whole(audit: Context):
    recipe = Recipe(site_of(audit), prediction.make_predict_worker)
    assert sent(recipe) == recipe
    assert len(pickle.dumps(recipe)) < 4000
    assert all(path.is_absolute() for path in (recipe.site.model, recipe.site.root))


def test_workers_opened_anew_write_the_same_bytes(audit: Context):
    from audit.explain.causal import causal_shard
    from audit.explain.explanations import explain_shard
    from audit.predict.inference import predict_shard

    site, folder = site_of(audit), audit.folder
    stages = {
        "predictions": (prediction.make_predict_worker, predict_shard),
        "explanations": (explanation.make_explain_worker, explain_shard),
        "causes": (explanation.make_causal_worker, causal_shard),
    }
    for stage, (make, audit_shard) in stages.items():
        path = folder.shard_path(stage, 1)
        before, ids = path.read_bytes(), folder.read_shard(stage, 1)["image_id"].unique()
        (spec,) = local.cut_shards(stage, ids.tolist(), 1000)
        worker = sent(Recipe(site, make))(lambda kind, text: pytest.fail(text))
        path.unlink()
        audit_shard(replace(spec, index=1), worker)
        assert path.read_bytes() == before, stage


def test_an_image_that_kills_is_left_out_of_a_real_shard_with_the_reason(audit: Context):
    from audit.predict.inference import predict_shard

    worker = Recipe(site_of(audit), prediction.make_predict_worker)(lambda kind, text: None)
    before = audit.folder.read_shard("predictions", 0)
    (spec,) = local.cut_shards("predictions", before["image_id"], 1000)
    receipt = predict_shard(spec, replace(worker, source=SourceWithout(worker.source, {4: KILLS})))
    assert receipt.left_out == ((4, KILLS),)
    after = audit.folder.read_shard("predictions", 0)
    assert after["image_id"].tolist() == [i for i in before["image_id"] if i != 4]
    # Another image is in its batch now, which may move the last digits.
    kept = before.loc[before["image_id"] != 4, "p_pred"]
    np.testing.assert_allclose(after["p_pred"], kept, atol=1e-6)


def test_a_remote_audit_writes_no_manifest_and_hands_on_its_warnings(audit: Context):
    said: list[tuple[str, str]] = []
    remote = site_of(audit).open(lambda *warning: said.append(warning))
    before = audit.folder.manifest_path.read_bytes()
    remote.predictor.on_halved(8)
    explanation.on_halved(remote, 2)
    assert [kind for kind, _ in said] == ["memory", "memory"]
    assert "8 images are shown" in said[0][1] and "2 images are explained" in said[1][1]
    assert audit.folder.manifest_path.read_bytes() == before


@pytest.mark.parametrize("name", ["model", "root"])
def test_files_that_a_worker_does_not_see_are_named(audit: Context, name: str, tmp_path: Path):
    site = replace(site_of(audit), **{name: tmp_path / "gone"})
    with pytest.raises(RunFolderError, match=r"A worker does not see the .*no `.*gone` on the mac"):
        site.open(lambda kind, text: None)


def test_another_run_of_the_same_name_is_refused(audit: Context, tmp_path: Path):
    site: Site = site_of(audit)
    for other, what in (
        (replace(site, started="1999-01-01T00:00:00+00:00"), "another run"),
        (replace(site, run=tmp_path / "gone"), "no run"),
    ):
        with pytest.raises(RunFolderError, match=f"does not see the run folder. Received: {what}"):
            other.open(lambda kind, text: None)


def test_other_packages_are_refused(audit: Context):
    site = site_of(audit)
    other = replace(site, versions=site.versions | {"numpy": "1.0"})
    with pytest.raises(ConfigError, match=r"another version of numpy.*1\.0 where the audit"):
        other.open(lambda kind, text: None)


def test_what_is_in_memory_cannot_be_sent(drawn_model: Path, drawn_data: Path):
    config = make_config({})
    check_can_be_sent(Inputs(drawn_model, drawn_data, config))
    with pytest.raises(ConfigError, match=r"the model in files\. Received: a function"):
        check_can_be_sent(Inputs(lambda pixels: pixels, drawn_data, config))
    with pytest.raises(ConfigError, match="needs the data in files"):
        check_can_be_sent(Inputs(drawn_model, object(), config))


def test_where_an_audit_runs_is_not_kept_in_the_run_folder(drawn_run: Path):
    assert not set(PLACES) & set(RunFolder(drawn_run).read_manifest()["config"])
