"""Draw the pictures of `docs/experiment.md`: charts of the figures, and the article's own pictures.

    python benchmarks/supplement_pictures.py CACHE OUT [--results CACHE/supplement.jsonl]

The article's pictures are of handwritten digits, which ship with scikit-learn, so that anyone can
make them: 3s and 8s as in `gradcam-audit demo`, where most 8s of the training set stand behind bars
and no 3 does, so that 3s behind bars are called 8. The supplement are 3s of the training set with
bars drawn over them. A network is trained from the start with 0, 25, 50, 75 and 100 % of them,
audited and compared; OUT gets a 3 that the first calls an 8, with its maps at each step, as a
picture and as a GIF. With `--results` of `supplement.py`, OUT gets their charts as well.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from article_pictures import draw_comparison, draw_frames, write_gif, write_png
from supplement_series import OPTIONS, Record, describe_patterns, fused_maps, mean_share
from supplement_sets import SHARES
from supplement_tables import WORDS, focus_of_answer, markdown, signed

import audit
from audit.compare.comparison import compare_runs
from audit.demo import CLASS_NAMES, draw_bars, draw_digits, save_images, train_model
from audit.results import Run

SEED = 7
"""The demo's own."""
N_SUPPLEMENT = 8
SIDE = 224
"""What a map is enlarged to before it is drawn."""
THREE, EIGHT = 0, 1


# Digits


def barred_copies(
    images: np.ndarray, y_true: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return copies of the first n threes with bars, uint8 of shape (n, 32, 32, 3)."""
    copies = images[np.flatnonzero(y_true == THREE)[:n]].copy()
    for copy in copies:
        draw_bars(copy, rng)
    return copies


def audit_digits(cache: Path) -> list[Run]:
    """Train and audit the digits with each share of the supplement."""
    (images, y_true, has_bars), validation = draw_digits(SEED)
    if not (cache / "images").is_dir():
        save_images(cache / "images", *validation)
    copies = barred_copies(images, y_true, N_SUPPLEMENT, np.random.default_rng(SEED))
    runs = []
    for share in SHARES:
        n = round(share * N_SUPPLEMENT)
        model = cache / f"{n}.keras"
        if not model.is_file():
            training = (
                np.concatenate([images, copies[:n]]),
                np.concatenate([y_true, np.full(n, THREE)]),
                np.concatenate([has_bars, np.full(n, True)]),
            )
            train_model(*training).save(model)
        options = OPTIONS | {"classes": CLASS_NAMES}
        runs.append(audit.run(model, cache / "images", cache / f"run-{n}", **options))
    return runs


def digits_table(runs: Sequence[Run]) -> list[str]:
    """Return what the series of digits says: threes behind bars, and the largest pattern."""
    rows: list[Sequence[str]] = [
        ("supplement", "threes behind bars right", "others right", "largest pattern of the first")
    ]
    for share, run in zip(SHARES, runs, strict=True):
        is_right = run.predictions["y_true"] == run.predictions["y_pred"]
        barred = run.predictions["path"].str.startswith("three/bars")
        said = "–"
        if run is not runs[0]:
            compared = compare_runs([runs[0].path, run.path], ["before", "after"])
            patterns = describe_patterns(compared, compared.steps[0], frozenset())
            largest = max((p for p in patterns if not p["is_later"]), key=lambda p: p["n_errors"])
            said = f"{largest['verdict']}: {largest['n_errors']} → {largest['n_left']} errors, "
            said += signed(largest["change"])
        counts = [f"{is_right[which].sum()} of {which.sum()}" for which in (barred, ~barred)]
        rows.append((f"{share * 100:.0f} %", *counts, said))
    return markdown(rows)


def draw_digit(runs: Sequence[Run], cache: Path, out: Path) -> str:
    """Draw the most typical error of the first run's largest pattern at each step."""
    patterns = sorted(runs[0].summary()["patterns"], key=lambda p: -p["n_errors"])
    path = patterns[0]["images"][0]
    read = cv2.imread(str(cache / "images" / path), cv2.IMREAD_COLOR)
    picture = cv2.resize(read[..., ::-1], (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    panels = []
    for share, run in zip(SHARES, runs, strict=True):
        row = run.predictions.set_index("path").loc[path]
        model = cache / f"{run.path.name.removeprefix('run-')}.keras"
        answer = int(row["y_pred"])
        maps = fused_maps(run, model, cache / "images", [path], (EIGHT, THREE))[0]
        cam = maps[0] if answer == EIGHT else maps[1]
        heat = np.zeros((SIDE, SIDE), np.float32)
        if cam is not None:
            heat = cv2.resize(cam.astype(np.float32) / 255, (SIDE, SIDE))
        said = f"{CLASS_NAMES[answer]}, {row['p_pred']:.2f}"
        panels.append((f"{share * 100:.0f} % of the supplement", said, heat))
    write_png(out / "experiment-digit.png", draw_comparison(picture, panels))
    write_gif(out / "experiment-digit.gif", draw_frames(picture, panels))
    return path


# Charts


def series_points(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the points of the chart: what, artefact, seed, and in per cent share and value."""
    points = []
    for one in records:
        measured = {
            "cats with it that are right": one["right"],
            "focus on it, for its answer": vars(mean_share(focus_of_answer(one))),
            "focus on it, for dog": vars(mean_share(one["focus_dogs"])),
        }
        for what, estimate in measured.items():
            if estimate["value"] is None:
                continue
            value, low, high = (
                100 * (estimate["value"] if estimate[name] is None else estimate[name])
                for name in ("value", "low", "high")
            )
            points.append(
                {
                    "what": what,
                    "artefact": WORDS[one["kind"]],
                    "seed": str(one["seed"]),
                    "share": 100 * one["share"] + 2.5 * (one["seed"] - 1),  # Side by side.
                    "value": value,
                    "low": low,
                    "high": high,
                }
            )
    return points


def series_spec(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a Vega-Lite chart: a row for each artefact, a column for each quantity."""
    x = {
        "field": "share",
        "type": "quantitative",
        "title": "supplement, %",
        "axis": {"values": [100 * share for share in SHARES], "grid": False},
        "scale": {"domain": [-5, 105], "nice": False},
    }
    y = {"field": "value", "type": "quantitative", "title": "%", "scale": {"domain": [0, 100]}}
    colour = {
        "field": "seed",
        "type": "nominal",
        "scale": {"range": ["#1b5e8c", "#c2571a", "#4b7d2a"]},
    }
    layers = [
        {
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {"x": x, "y": y, "color": colour},
        },
        {
            "mark": {"type": "rule", "opacity": 0.6},
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "shape": {"field": "seed", "type": "nominal", "legend": None},
            },
        },
    ]
    order = list(dict.fromkeys(point["what"] for point in points))
    return {
        "data": {"values": list(points)},
        "facet": {
            "row": {"field": "artefact", "type": "nominal", "title": None},
            "column": {"field": "what", "type": "nominal", "title": None, "sort": order},
        },
        "spec": {"width": 220, "height": 160, "layer": layers},
        "background": "white",
        "config": {"font": "sans-serif", "view": {"stroke": "#cccccc"}},
    }


def draw_charts(results: Path, out: Path) -> None:
    """Draw the series of `supplement.py` as a PNG."""
    import vl_convert

    records = [json.loads(line) for line in results.read_text().splitlines()]
    series = sorted(
        (one for one in records if one["part"] == "series"),
        key=lambda one: (one["kind"], one["seed"], one["share"]),
    )
    png = vl_convert.vegalite_to_png(series_spec(series_points(series)), scale=1.5)
    (out / "experiment-series.png").write_bytes(png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path, help="a folder outside the project")
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, help="supplement.jsonl, for the charts")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.results:
        draw_charts(arguments.results, arguments.out)
    digits = arguments.cache / "digits"
    digits.mkdir(parents=True, exist_ok=True)
    runs = audit_digits(digits)
    print("\n".join(digits_table(runs)))
    print(f"\nThe picture shows {draw_digit(runs, digits, arguments.out)}.")


if __name__ == "__main__":
    main()
