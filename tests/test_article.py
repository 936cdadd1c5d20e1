"""The script that remakes the article's pictures: on paper, on drawn images, on a real error."""

from pathlib import Path

import article
import article_pictures
import cv2
import drawn_set
import numpy as np
import pytest
from article import ARTICLE_LAST, ARTICLE_MEAN, CONSENSUS, PLAIN_LAST, PLAIN_MEAN, RANDOM

from audit.explain.consensus import Consensus
from audit.explain.maps import Explainer
from audit.predict.model import AuditedModel, load_model
from audit.report.images import colour_table

RED_SQUARE = np.zeros((drawn_set.SIDE, drawn_set.SIDE), bool)
RED_SQUARE[19:31, 19:31] = True
"""Lower right, where what fools the model is drawn, with a border of a pixel or two."""


@pytest.fixture(scope="module")
def model(drawn_model: Path) -> AuditedModel:
    return load_model(drawn_model)


@pytest.fixture(scope="module")
def errors(model: AuditedModel, drawn_data: Path) -> article.Errors:
    return article.find_errors(model, drawn_data)


@pytest.fixture(scope="module")
def explainer(model: AuditedModel) -> Explainer:
    return Explainer(model, method="article", fusion="article", keep_maps="full")


def test_the_errors_are_the_first_class_called_the_second(errors: article.Errors):
    n = drawn_set.N_FALSE_POSITIVES
    assert errors.paths == tuple(f"left/fooled-{number:02d}.png" for number in range(n))
    drawn = [drawn_set.draw_image("left", fooled=True, number=number) for number in range(n)]
    np.testing.assert_array_equal(errors.pixels, np.array(drawn, np.float32))
    assert (errors.probabilities > 0.5).all()


def test_heats_run_from_0_to_1_in_the_models_order(explainer: Explainer, errors: article.Errors):
    heats = article.explain_layers(explainer, errors.pixels[0])
    names = [layer.layer for layer in heats.layers]
    assert names == ["colours", "pool_1", "blobs", "pool_2"]
    assert heats.heats.shape == (4, 32, 32)
    assert (heats.heats.min(axis=(1, 2)) == 0).all() and (heats.heats.max(axis=(1, 2)) == 1).all()
    assert article.last_convolution(heats.layers).layer == "blobs"


def test_the_engines_mean_is_the_mean_of_the_heats_shown(
    explainer: Explainer, errors: article.Errors
):
    for pixels in errors.pixels[:3]:
        heats = article.explain_layers(explainer, pixels)
        mean = heats.heats.mean(axis=0)
        expected = (mean - mean.min()) / np.ptp(mean)
        np.testing.assert_allclose(heats.mean, expected, atol=2 / 255)  # Stored in a byte, twice.


def test_what_fools_the_model_is_what_the_maps_show(
    model: AuditedModel, errors: article.Errors, consensus: Consensus
):
    by_rule = {
        "article": Explainer(model, method="article", fusion="article", keep_maps="full"),
        "gradcam": Explainer(model, method="gradcam", fusion="mean", keep_maps="full"),
        "consensus": Explainer(model, consensus=consensus),
    }
    maps = article.compared_maps(by_rule, errors.pixels)
    masks = np.stack([RED_SQUARE] * len(errors.paths))
    judged = article.judge(article.probabilities_of(model), errors.pixels, maps, masks)
    named = {RANDOM, ARTICLE_LAST, ARTICLE_MEAN, PLAIN_LAST, PLAIN_MEAN, CONSENSUS}
    assert set(judged) == named
    for kind in set(judged) - {RANDOM}:
        assert judged[kind]["ap"].min() > 0.8, kind
        assert judged[kind]["pointing"].min() == 1, kind
        assert judged[kind]["painted"].min() == 1, kind
    assert judged[RANDOM]["ap"].max() < 0.5
    assert maps[ARTICLE_LAST].shape == (8, 16, 16)
    assert maps[ARTICLE_MEAN].shape == (8, 32, 32)


def test_the_classes_of_plain_grad_cam_look_elsewhere(model: AuditedModel, errors: article.Errors):
    plain = Explainer(model, method="gradcam", fusion="mean", keep_maps="full")
    likeness = article.class_likeness(plain, errors.pixels)
    assert likeness.shape == (8,)
    assert (likeness < 0).all()  # Blue speaks for one class, red for the other.


def test_scaling_and_shares_worked_out_by_hand():
    heat = np.array([[1, 3], [5, 2]])
    np.testing.assert_allclose(article.scale_heat(heat, (2, 2)), [[0, 0.5], [1, 0.25]])
    assert not article.scale_heat(np.full((2, 2), 7), (4, 4)).any()
    assert article.hot_share(heat, (2, 2)) == 0.25  # One pixel of four is at 0.7 or more.
    assert article.correlation(heat, heat) == pytest.approx(1)
    assert article.correlation(heat, -2.0 * heat) == pytest.approx(-1)
    assert article.correlation(heat, np.zeros((2, 2))) == 0
    ramp = np.arange(100.0).reshape(10, 10)
    np.testing.assert_array_equal(article.hottest(ramp, (10, 10)), ramp >= 80)


def test_the_best_case_is_where_averaging_narrows_most():
    wide, narrow = np.ones((4, 4)), np.zeros((4, 4))
    wide[0, 0], narrow[0, 0] = 0, 1  # 15 pixels of 16, and 1.
    maps = {ARTICLE_LAST: np.stack([narrow, wide, wide])}
    maps[ARTICLE_MEAN] = np.stack([wide, wide, narrow])
    assert article.most_narrowed(maps, (4, 4)) == 2


def test_what_averaging_gains_is_counted_error_by_error():
    values = {
        ARTICLE_LAST: [0.2, 0.4],
        ARTICLE_MEAN: [0.3, 0.5],
        PLAIN_LAST: [0.5, 0.5],
        PLAIN_MEAN: [0.25, 0.25],
    }
    judged = {kind: {"ap": np.array(ap)} for kind, ap in values.items()}
    head, _, *rows = article.claim_table(judged)
    assert head == "| map | pixel AP |"
    assert rows[0] == f"| {ARTICLE_LAST} | 0.300 (0.200 to 0.400) |"
    # Each error gains 0.1, so the gain is sure although the values are not.
    assert rows[4] == "| article's rule, mean − last | +0.100 (+0.100 to +0.100) |"
    assert rows[5] == "| Grad-CAM, mean − last | -0.250 (-0.250 to -0.250) |"


def test_colours_are_the_articles():
    picture = np.full((1, 3, 3), 100, np.uint8)
    heat = np.array([[0, 0.5, 1]], np.float32)
    shown = article_pictures.overlay(picture, heat)
    expected = (colour_table("jet")[[0, 128, 255]] + 100.0) / 2
    np.testing.assert_allclose(shown[0], expected, atol=0.5)
    assert shown[0, 0].argmax() == 2 and shown[0, 2].argmax() == 0  # Blue is cold, red is hot.
    kept = article_pictures.most_important(picture, np.array([[0.69, 0.7, 1]], np.float32))
    assert kept[0, :, 0].tolist() == [236, 100, 100]


def test_a_strip_has_a_panel_for_every_layer_and_no_text_runs_over():
    picture = np.zeros((8, 8, 3), np.uint8)
    name = "a_name_that_is_far_too_long_for_its_panel_‮/" * 3
    panels = [(name, "8 × 8", np.zeros((8, 8), np.float32))] * 9
    strip = article_pictures.draw_strip(picture, panels)
    assert strip.shape == (2 * (152 + 40 + 8) + 8, 8 * (152 + 8) + 8, 3)
    assert (strip[:, 160:168] == 255).all()  # The gap between two columns stays white.
    np.testing.assert_array_equal(strip, article_pictures.draw_strip(picture, panels))


def test_an_animation_comes_back_frame_by_frame(tmp_path: Path):
    picture = np.zeros((8, 8, 3), np.uint8)
    panels = [(f"layer {i}", "8 × 8", np.full((8, 8), i / 2, np.float32)) for i in range(3)]
    frames = article_pictures.draw_frames(picture, panels)
    article_pictures.write_gif(tmp_path / "layers.gif", frames)
    read, animation = cv2.imreadanimation(str(tmp_path / "layers.gif"))
    assert read and animation.loop_count == 0
    assert list(animation.durations) == [900, 900, 2700]
    for frame, found in zip(frames, animation.frames, strict=True):
        middle = found[100, 100, 2::-1].astype(int)  # BGR
        assert np.abs(middle - frame[100, 100]).max() <= 8  # A GIF has 256 colours.


@pytest.fixture(scope="module")
def consensus(model: AuditedModel, drawn_data: Path) -> Consensus:
    return article.learn(model, drawn_data, interpolation="bilinear")


def test_a_whole_run_on_drawn_images(
    model: AuditedModel, errors: article.Errors, consensus: Consensus, tmp_path: Path
):
    (tmp_path / "masks" / "left").mkdir(parents=True)
    for path in errors.paths[:5]:
        mask = RED_SQUARE.astype(np.uint8) * 255
        assert cv2.imwrite(str((tmp_path / "masks" / path).with_suffix(".png")), mask)
    out = tmp_path / "out"
    lines = article.run(model, errors, consensus, out, "left/fooled-03.png", tmp_path / "masks")
    assert lines[0].startswith("`left/fooled-03.png`, probability ")
    assert "5 errors; the last convolution is `blobs`:" in lines
    assert "| 32 × 32 | 1 | 0 |" in "\n".join(lines)
    for name in ("layers.png", "comparison.png"):
        assert cv2.imread(str(out / name)).std() > 20
    assert (out / "layers.gif").stat().st_size < 300_000
    again = tmp_path / "again"
    assert (
        article.run(model, errors, consensus, again, "left/fooled-03.png", tmp_path / "masks")
        == lines
    )
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    without_masks = article.run(model, errors, consensus, out, None, None)
    assert "8 errors; the last convolution is `blobs`:" in without_masks
    assert "pixel AP" not in "\n".join(without_masks)


def test_what_is_missing_is_said(
    model: AuditedModel,
    errors: article.Errors,
    consensus: Consensus,
    tmp_path: Path,
):
    with pytest.raises(SystemExit, match="is not an error that counts"):
        article.run(model, errors, consensus, tmp_path, "left/plain-09.png", None)
    with pytest.raises(SystemExit, match="No error has a mask"):
        article.run(model, errors, consensus, tmp_path, None, tmp_path)
    right = tmp_path / "val"
    for number in range(2):
        for name in drawn_set.CLASS_NAMES:
            image = drawn_set.draw_image(name, fooled=False, number=number)
            drawn_set.save_image(right / name / f"{number}.png", image)
    with pytest.raises(SystemExit, match="calls no image of `left` `right`"):
        article.find_errors(model, right)


@pytest.mark.slow
def test_the_error_that_the_page_describes(shared_data: Path):
    data = shared_data / "cats_dogs"
    model = load_model(data / "models" / "article_style_mobilenetv2_035_n400.keras")
    errors = article.find_errors(model, data / "val")
    assert len(errors.paths) == 58
    position = errors.paths.index("cats/cat.4745.jpg")
    pixels = errors.pixels[position]
    assert errors.probabilities[position] == pytest.approx(0.625, abs=0.001)
    by_rule = {
        "article": Explainer(model, method="article", fusion="article", keep_maps="full"),
        "gradcam": Explainer(model, method="gradcam", fusion="mean", keep_maps="full"),
    }
    heats = article.explain_layers(by_rule["article"], pixels)
    assert len(heats.layers) == 153
    assert article.label(article.last_convolution(heats.layers)) == "Conv_1"
    maps = article.compared_maps(by_rule, pixels[None])
    shares = {kind: article.hot_share(heat[0], (224, 224)) for kind, heat in maps.items()}
    assert shares[ARTICLE_LAST] == pytest.approx(0.53, abs=0.02)
    assert shares[ARTICLE_MEAN] == pytest.approx(0.13, abs=0.02)
    # The mean is narrower, and yet what it calls hottest is not what decides.
    scores_of = article.probabilities_of(model)
    assert article.ask_painted(scores_of, pixels[None], maps[ARTICLE_LAST])[0] < 0.25
    assert article.ask_painted(scores_of, pixels[None], maps[ARTICLE_MEAN])[0] > 0.6
