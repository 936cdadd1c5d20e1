"""Does an audit tell why a model is wrong? Judged where we know: planted artefacts, flips, nothing.

    python benchmarks/planted.py SOURCE CACHE [--settings NAME …] [--held-out] [--reuse] [--real]

SOURCE holds `cats_dogs`; CACHE is a folder outside the project. Each setting is made if it is not
there (see `planted_settings.py`), audited into CACHE/<setting>/run and held against its truth;
`--reuse` judges runs that are there. Printed as Markdown and written to CACHE/planted.json: a row
for each setting, and counts over all with 95 % Wilson intervals beside the goals. A dash is what no
run holds yet. `--real` audits the real photographs instead, and says what became of the errors
that people found behind fences and cages, and of three labels that are wrong.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import planted_scores as scores
from planted_answers import judge
from planted_scores import Judged, Measure
from planted_settings import choose, generate

import audit
from audit.results import Run

FENCES = (
    *("dog.4379", "dog.4574", "dog.4657", "dog.4706", "dog.4768", "dog.4930"),
    *("cat.4470", "cat.4745", "cat.4986", "cat.4992"),
)
"""Real errors that show bars or mesh."""
WRONG_LABELS = ("cat.4085", "cat.4688", "cat.4833")
"""A dog, a logo and a drawing."""


# Print


def settings_table(judged: Sequence[Judged]) -> list[str]:
    """Return a Markdown table with a row for each setting."""
    header = (
        *("setting", "errors", "planted errors (right without)", "precision@10", "verdict"),
        *("ARI", "patterns causal/all", "slice", "probe", "labels AP/loss AP", "find@50"),
        *("first target names it", "first target", "s"),
    )
    return _markdown([header, *(_row(one) for one in judged)])


def _row(one: Judged) -> list[str]:
    planted = [f"{f.kind} {f.n_errors} ({_number(f.repaired)})" for f in one.found]
    return [
        one.name,
        str(one.n_errors),
        _join(planted),
        _join([_number(found.precision) for found in one.found]),
        _join([found.verdict or "–" for found in one.found]),
        _number(one.ari),
        f"{_text(one.n_causal)}/{_text(one.n_patterns)}",
        _join([_text(found.by_slice) for found in one.found]),
        _join([_text(found.by_probe) for found in one.found]),
        f"{_number(one.label_precision)}/{_number(one.loss_precision)}",
        _number(one.find_precision),
        _text(one.first_target),
        (one.first_title or "–").replace("|", "/"),
        "–" if one.seconds is None else f"{one.seconds:.0f}",
    ]


def measures_table(measures: Sequence[Measure]) -> list[str]:
    """Return a Markdown table of counts with intervals and goals."""
    rows: list[Sequence[str]] = [("measure", "count", "95 % interval", "goal", "met")]
    for one in measures:
        if one.total == 0:
            rows.append((one.name, "–", "–", _goal(one), "–"))
            continue
        low, high = one.interval()
        share = f"{one.hits} of {one.total} = {one.hits / one.total:.0%}"
        rows.append((one.name, share, f"{low:.0%} to {high:.0%}", _goal(one), _text(one.is_met)))
    return _markdown(rows)


def _goal(one: Measure) -> str:
    return "–" if one.goal is None else f"{'≤' if one.at_most else '≥'} {one.goal:.0%}"


def means_table(rows: Sequence[tuple[str, float, int, float | None]]) -> list[str]:
    """Return a Markdown table of means."""
    cells = [(n, f"{v:.2f}", str(k), "–" if g is None else f"≥ {g}") for n, v, k, g in rows]
    return _markdown([("mean over settings", "value", "settings", "goal"), *cells])


def _join(cells: Sequence[str]) -> str:
    return "; ".join(cells) or "–"


def _text(value: bool | int | str | None) -> str:
    if value is None:
        return "–"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


# The real photographs


def real_tables(source: Path, cache: Path, *, reuse: bool) -> list[str]:
    """Audit the real cats and dogs; return what became of the errors that people looked at."""
    data = source / "cats_dogs"
    out = cache / "real-n400"
    if not reuse or not (out / "manifest.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        model = data / "models" / "article_style_mobilenetv2_035_n400.keras"
        audit.run(model, data / "val", out, progress=False)
    run = Run(out)
    errors = run.errors.set_index(run.errors["path"].map(lambda path: Path(path).stem))
    focus = run.focus[run.focus["explained_class"] == run.focus["y_pred"]].set_index("image_id")
    names = run.patterns.set_index("pattern")["name"]
    rows: list[Sequence[str]] = [("error with bars or mesh", "pattern", "its errors")]
    for stem in FENCES:
        number = int(focus["pattern"].get(errors["image_id"].get(stem, -1), -2))
        said = {-2: "no error of this model", -1: "none"}.get(number) or names[number]
        members = int(((focus["pattern"] == number) & (focus["role"] == "error")).sum())
        rows.append((stem, said, str(members) if number >= 0 else "–"))
    lines = [*_markdown(rows), ""]
    labels: list[Sequence[str]] = [("wrong label", "flagged", "rank", "suggested")]
    if not (out / "label_issues.parquet").is_file():
        return [*lines, *_markdown([*labels, *((stem, "–", "–", "–") for stem in WRONG_LABELS)])]
    stems = run.predictions.set_index("image_id")["path"].map(lambda path: Path(path).stem)
    issues = run.label_issues.assign(stem=run.label_issues["image_id"].map(stems))
    for stem in WRONG_LABELS:
        flags = issues[issues["stem"] == stem]
        cells = [
            (stem, row["kind"], str(row["rank"]), str(row["suggested"]))
            for row in flags.to_dict("records")
        ]
        labels += cells or [(stem, "no", "–", "–")]
    return [*lines, *_markdown(labels), "", f"{len(issues)} rows of label issues in all."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("cache", type=Path, help="a folder outside the project")
    parser.add_argument("--settings", nargs="+", metavar="NAME")
    parser.add_argument("--held-out", action="store_true", help="only the kinds kept apart")
    parser.add_argument("--reuse", action="store_true", help="judge finished runs as they are")
    parser.add_argument("--real", action="store_true", help="the real photographs instead")
    arguments = parser.parse_args()
    if arguments.real:
        print("\n".join(real_tables(arguments.source, arguments.cache, reuse=arguments.reuse)))
        return
    chosen = choose(arguments.settings, held_out=arguments.held_out)
    missing = [one for one in chosen if not is_made(arguments.cache / one.name)]
    if missing:
        generate(missing, arguments.source, arguments.cache)
    judged = [judge(arguments.cache / one.name, reuse=arguments.reuse) for one in chosen]
    measures, means = scores.measure(judged), scores.means(judged)
    tables = [settings_table(judged), measures_table(measures), means_table(means)]
    print("\n\n".join("\n".join(table) for table in tables))
    name = "planted-held-out.json" if arguments.held_out else "planted.json"
    write_json(arguments.cache / name, judged, measures)


def is_made(folder: Path) -> bool:
    return (folder / "setting.json").is_file()


def write_json(path: Path, judged: Sequence[Judged], measures: Sequence[Measure]) -> None:
    content = {
        "settings": [asdict(one) for one in judged],
        "measures": [
            asdict(one) | {"interval": one.interval() if one.total else None, "met": one.is_met}
            for one in measures
        ],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
