"""The command line: help, output, exit codes, errors in one line."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import drawn_set
import pytest
import search_fixture
from click.testing import CliRunner, Result
from finding_tables import diagnose_run

import audit
from audit.cli import main
from audit.config import AuditConfig, option_name
from audit.run_folder import RunFolder
from audit.run_lock import locked

COMMANDS = ("run", "report", "show", "find", "compare", "inspect", "demo")
SHARDS = [
    part for name, value in drawn_set.SHARDS.items() for part in (option_name(name), str(value))
]
SHOW_KEYS = {  # design: what scripts rely on
    "n_images",
    "n_errors",
    "n_unreadable",
    "accuracy",
    "confusion",
    "class_names",
    "n_patterns",
    "patterns",
    "findings",
    "targets",
    "report",
}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_commands_are_these():
    assert sorted(main.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", [None, *COMMANDS])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_an_example(command: str | None, flag: str):
    result = call(*([command] if command else []), flag)
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"gradcam-audit {command or 'run'}" in result.stdout
    assert all(option.help for option in options_of(command or "run") if option.name != "help")


def options_of(command: str) -> list[click.Option]:
    return [p for p in main.commands[command].params if isinstance(p, click.Option)]


def test_the_options_of_run_are_the_fields_of_the_config():
    options = {option.name: option for option in options_of("run")}
    assert set(options) - {"out", "config", "notify_cmd"} == set(AuditConfig.model_fields)
    for name in AuditConfig.model_fields:
        assert options[name].opts == [option_name(name)]
        assert options[name].default is None, "the defaults are those of AuditConfig, or the file's"


def test_the_version_is_the_packages():
    assert call("--version").stdout == f"gradcam-audit, version {audit.__version__}\n"


def test_python_m_audit_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "audit", "--help"], capture_output=True, text=True, check=True
    )
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert done.stderr == ""


# run


def test_a_run_prints_its_summary_and_last_the_reports_path(
    drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    out = tmp_path / "run"
    result = call("run", drawn_model, drawn_data, "--out", out, *SHARDS)
    assert result.exit_code == 0
    *summary, last = result.stdout.splitlines()
    assert last == str(out / "report" / "index.html")
    assert Path(last).is_file()
    assert summary[0] == "images      60 (0 unreadable, 1 skipped)"
    assert summary[1].startswith("accuracy    76.67% [")
    assert summary[2] == (
        "errors      14: 8 false positives, 6 false negatives (positive class: right)"
    )
    assert "explained   14 errors over 4 layers" in summary
    assert "predict (stage 2 of 11)" in result.stderr


def test_zero_is_a_value(drawn_data: Path, drawn_model: Path, tmp_path: Path):
    toml = tmp_path / "audit.toml"
    toml.write_text("controls = 5\nmax-unreadable = 7\nseed = 3\n")
    zeros = ["--controls", 0, "--max-unreadable", 0, "--seed", 0]
    result = call(
        "run", drawn_model, drawn_data, "--out", tmp_path / "run", "--config", toml, *zeros
    )
    assert result.exit_code == 0
    config = audit.Run(tmp_path / "run").manifest["config"]
    assert (config["controls"], config["max_unreadable"], config["seed"]) == (0, 0, 0)


@pytest.mark.parametrize(("allowed", "exit_code"), [(None, 3), (1, 0)])
def test_an_unreadable_image_ends_the_run_with_exit_code_3_unless_allowed(
    allowed: int | None, exit_code: int, drawn_model: Path, tmp_path: Path
):
    data = drawn_set.save_set(tmp_path / "val")
    (data / "left" / "plain-20.png").write_bytes(b"")
    given = [] if allowed is None else ["--max-unreadable", allowed]
    result = call("run", drawn_model, data, "--out", tmp_path / "run", *given)
    assert result.exit_code == exit_code
    assert "(1 unreadable, 0 skipped)" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("index.html")
    assert audit.Run(tmp_path / "run").unreadable["path"].tolist() == ["left/plain-20.png"]
    again = call("run", drawn_model, data, "--out", tmp_path / "run", *given)
    assert again.exit_code == exit_code, "nor is it forgotten when the run is already finished"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["run"],
        ["run", "model.keras", "val"],
        ["run", "model.keras", "val", "--out", "x", "--no-such-option"],
        ["run", "model.keras", "val", "--out", "x", "--scaling", "0-255"],
        ["run", "model.keras", "val", "--out", "x", "--threshold", "half"],
        ["inspect"],
        ["inspect", "model.keras", "--head", "tail"],
        ["show"],
        ["report"],
        ["find", "run"],
        ["find", "run", "--target", "T1"],
        ["find", "run", "--target", "T1", "--pool", "pool", "--top", "0"],
    ],
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str]):
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["run", "nothing.keras", "{data}", "--out", "{out}"], "There is no model at"),
        (["run", "{model}", "nothing", "--out", "{out}"], "There is no data at"),
        (["run", "{model}", "{data}", "--out", "{model}"], "`{model}` is a file, not a folder."),
        (["run", "{model}", "{data}", "--out", "{data}"], "`{data}` is not empty"),
        (["run", "{model}", "{data}", "--out", "{out}", "--threshold", "2"], "`--threshold`"),
        (["run", "{model}", "{data}", "--out", "{out}", "--config", "no.toml"], "`--config no.t"),
        (["inspect", "nothing.keras"], "There is no model at"),
        (["show", "{data}"], "`{data}` is not a run folder."),
        (["report", "{data}"], "`{data}` is not a run folder."),
        (["demo", "--out", "{model}"], "`{model}` cannot be written."),
        (["find", "{data}", "--target", "T1", "--pool", "{data}"], "`{data}` is not a run folder."),
    ],
)
def test_an_error_is_one_line_on_stderr(
    arguments: list[str], start: str, drawn_data: Path, drawn_model: Path, tmp_path: Path
):
    names = {"data": drawn_data, "model": drawn_model, "out": tmp_path / "run"}
    result = call(*(argument.format(**names) for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {start.format(**names)}")
    assert len(result.stderr.splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


def test_a_bug_is_not_dressed_up_as_a_users_error(drawn_run: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(run: audit.Run) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("audit.results.Run.summary", broken)
    assert isinstance(call("show", drawn_run).exception, ZeroDivisionError)


# How a run ends


COPY = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"


@pytest.fixture
def again(drawn_run: Path, drawn_data: Path, drawn_model: Path, tmp_path: Path) -> list[object]:
    """The command that goes on with a copy of the finished run."""
    out = shutil.copytree(drawn_run, tmp_path / "run")
    return ["run", drawn_model, drawn_data, "--out", out, *SHARDS]


def test_a_missed_limit_ends_with_exit_code_4_and_says_by_how_much(again: list[object]):
    result = call(*again, "--fail-under", "accuracy=0.9", "--fail-under", "recall=0.5")
    assert result.exit_code == 4
    *_, missed, kept, finished, path = result.stdout.splitlines()
    assert re.fullmatch(
        r"GATE MISSED accuracy is 0\.7667 \[0\.\d{4}, 0\.\d{4}\], below 0\.9", missed
    )
    assert re.fullmatch(r"gate kept   recall is 0\.8000 \[.*\], at least 0\.5", kept)
    assert finished == "finished    the model misses a limit of `--fail-under` (exit code 4)"
    assert path.endswith("index.html")
    lower = call(*again, "--fail-under", "accuracy=0.7")
    assert lower.exit_code == 0, "a finished run may be held against another limit"
    assert lower.stdout.splitlines()[-2] == "finished    nothing was left out"


def test_limits_may_come_from_a_file(again: list[object], tmp_path: Path):
    toml = tmp_path / "audit.toml"
    toml.write_text("[fail-under]\naccuracy = 0.99\n")
    assert call(*again, "--config", toml).exit_code == 4


def test_an_unknown_metric_is_one_sentence_with_the_list(again: list[object]):
    result = call(*again, "--fail-under", "acuracy=0.9")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: `--fail-under` cannot be used: there is no metric")
    assert "accuracy, balanced_accuracy" in result.stderr


def notified(path: Path) -> list[object]:
    return ["--notify-cmd", shlex.join([sys.executable, "-c", COPY, str(path)])]


def test_a_command_is_told_how_the_run_ended(again: list[object], tmp_path: Path):
    result = call(*again, "--fail-under", "accuracy=0.9", *notified(tmp_path / "told"))
    assert result.exit_code == 4
    told = json.loads((tmp_path / "told").read_text())
    shown = json.loads(call("show", tmp_path / "run", "--json").stdout)
    assert told == shown | {
        "status": "done",
        "exit_code": 4,
        "run": str(tmp_path / "run"),
        "error": None,
    }
    assert told["gates"][0]["passed"] is False


def test_a_command_is_told_of_an_error(again: list[object], tmp_path: Path):
    result = call(*again, "--seed", 9, *notified(tmp_path / "told"))
    assert result.exit_code == 1
    told = json.loads((tmp_path / "told").read_text())
    assert (told["status"], told["exit_code"]) == ("failed", 1)
    assert told["error"] == result.stderr.removeprefix("Error: ").rstrip()
    assert told["n_images"] == 60, "as far as it came"


def test_a_command_that_fails_is_a_warning(again: list[object]):
    result = call(*again, "--notify-cmd", f"{sys.executable} -c 'import sys; sys.exit(5)'")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == (
        "WARNING: the command of `--notify-cmd` failed: it ended with exit code 5."
    )


def test_a_command_that_cannot_be_run_is_refused_before_the_night(again: list[object]):
    result = call(*again, "--notify-cmd", "no-such-program now")
    assert result.exit_code == 1
    assert "there is no program `no-such-program`" in result.stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(
    number: signal.Signals,
    exit_code: int,
    again: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("audit.pipeline.run", lambda *_, **__: signal.raise_signal(number))
    result = call(*again, *notified(tmp_path / "told"))
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        f"Stopped by {number.name}. Nothing that is done is lost: start the same command again to"
        " go on."
    )
    told = json.loads((tmp_path / "told").read_text())
    assert (told["status"], told["exit_code"]) == ("stopped", exit_code)


@pytest.mark.parametrize(
    ("command", "function"),
    [("demo", "audit.demo.run_demo"), ("show", "audit.results.Run.summary")],
)
def test_every_command_can_be_stopped(
    command: str, function: str, drawn_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(function, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    result = call(command, *([] if command == "demo" else [drawn_run]))
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("Stopped by SIGINT. Nothing that is done")
    assert signal.getsignal(signal.SIGINT) is before


def test_while_a_run_is_written_nobody_else_writes_into_it(again: list[object], tmp_path: Path):
    run = tmp_path / "run"
    with locked(RunFolder(run)):
        for arguments in (again, ["report", run]):
            result = call(*arguments)
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr.startswith(f"Error: `{run}` is in use. Received: another")
        assert call("show", run).exit_code == 0


# show, report


def test_show_prints_the_summary_and_the_report(drawn_run: Path):
    result = call("show", drawn_run)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "images      60 (0 unreadable, 1 skipped)"
    assert lines[-1] == str(drawn_run / "report" / "index.html")
    assert sum(line.startswith("pattern ") for line in lines) == 2


def test_show_prints_the_first_findings_and_targets(drawn_run: Path, tmp_path: Path):
    run = diagnose_run(drawn_run, tmp_path / "run")
    lines = call("show", run).stdout.splitlines()
    (first,) = [line for line in lines if line.startswith("finding F1")]
    assert first == (
        "finding F1  57 of 96 errors (cats → dogs) look at vertical stripes, either side; painting"
        " that out turns 84 % of them right [72, 91], the same shape elsewhere 11 % (q < 0.001)."
    )
    (first,) = [line for line in lines if line.startswith("target T1")]
    assert first == (
        "target T1   Collect more cats: vertical stripes, either side"
        " (at most 48 errors fewer [41, 52])"
    )
    assert sum(line.startswith("finding ") for line in lines) == 5
    assert sum(line.startswith("target ") for line in lines) == 5
    assert "more        3 findings and 3 targets are in the report" in lines
    assert json.loads(call("show", run, "--json").stdout)["targets"] == audit.Run(run).targets


def test_show_says_when_nothing_was_found(drawn_run: Path, tmp_path: Path):
    run = diagnose_run(drawn_run, tmp_path / "run")
    (run / "findings.json").write_text('{"findings": []}')
    (run / "targets.json").write_text('{"targets": []}')
    lines = call("show", run).stdout.splitlines()
    assert "findings    nothing passed its test" in lines
    assert not any(line.startswith(("finding F", "target ", "more ")) for line in lines)


def test_show_prints_json_for_scripts(drawn_run: Path):
    result = call("show", drawn_run, "--json")
    shown = json.loads(result.stdout)
    assert shown.keys() >= SHOW_KEYS
    assert shown == audit.Run(drawn_run).summary()
    for pattern in shown["patterns"]:
        assert pattern.keys() >= {"id", "name", "n_errors", "images", "verdict"}


def test_show_of_a_stopped_run_says_so(drawn_run: Path, tmp_path: Path):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["status"] = "running"
    for name in ("metrics", "explain", "patterns", "report"):
        manifest["stages"][name] = {"state": "waiting", "seconds": None}
    (run / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(run / "report")
    result = call("show", run)
    assert result.exit_code == 0
    assert "running; no metrics yet" in result.stdout
    assert result.stdout.splitlines()[-1] == "no report yet"
    assert json.loads(call("show", run, "--json").stdout)["accuracy"] is None


def test_report_renders_again_and_prints_the_path(drawn_run: Path, tmp_path: Path):
    run = shutil.copytree(drawn_run, tmp_path / "run")
    before = (run / "report" / "index.html").read_bytes()
    shutil.rmtree(run / "report")
    result = call("report", run)
    assert result.exit_code == 0
    assert result.stdout == f"{run / 'report' / 'index.html'}\n"
    assert (run / "report" / "index.html").read_bytes() == before


# inspect


def test_find_prints_what_it_found_and_last_the_sheets_path(
    drawn_model: Path, drawn_data: Path, tmp_path: Path
):
    run = search_fixture.make_run(tmp_path / "run", drawn_model, drawn_data, focus=False)
    pool = tmp_path / "pool"
    search_fixture.draw_pool(pool)
    (pool / "empty\x1b.png").write_bytes(b"")
    arguments = ("find", run.path, "--target", "T1", "--pool", pool, "--top", 3)
    result = call(*arguments, "--out", tmp_path / "out", "--model", drawn_model)
    assert result.exit_code == 0, result.output
    target, images, best, note, table, sheet = result.stdout.splitlines()
    assert target == "target      T1: Collect red squares"
    assert images == "pool        41 images (1 unreadable, 0 skipped)"
    assert re.fullmatch(r"best        \S+\.png, likeness (0\.\d\d|1\.00)", best)
    assert note.startswith("NOTE        Only whole images were compared")
    assert table == f"table       {tmp_path / 'out' / 'found.csv'}"
    assert sheet == str(tmp_path / "out" / "contact_sheet.html")
    assert len(Path(sheet).with_name("found.csv").read_text().splitlines()) == 1 + 3
    assert "find T1: 100%" in result.stderr


def test_inspect_says_what_would_be_explained(drawn_model: Path):
    result = call("inspect", drawn_model)
    assert result.exit_code == 0
    facts, table = result.stdout.split("\n\n")
    # parameters: 3·3·3·2 + 2, 3·3·2·2 + 2, 2·1 + 1
    assert facts.splitlines() == [
        "model       corners.keras, 97 parameters",
        "input       32 × 32 × 3, float32; scaling is up to --scaling, default none (0 to 255)",
        "outputs     1, logit (detected; --head overrides it)",
        "classes     2",
        "explained   The logit of the class: the raw output; the first class is explained by the"
        " negative of the only output.",
        "layers      5 spatial, 4 explained",
    ]
    cells = [re.split(r"\s{2,}", line.strip(), maxsplit=5) for line in table.splitlines()]
    assert cells == [
        ["#", "size", "channels", "stage", "kind", "layer"],
        [
            *("0", "32×32", "3", "0", "Rescaling"),
            "scale   skipped: preprocessing: the image itself, no features",
        ],
        ["1", "32×32", "2", "0", "Conv2D", "colours"],
        ["2", "16×16", "2", "1", "MaxPooling2D", "pool_1"],
        ["3", "16×16", "2", "1", "Conv2D", "blobs"],
        ["4", "8×8", "2", "2", "MaxPooling2D", "pool_2"],
    ]


def test_inspect_lists_tokens_and_says_what_was_chosen(tmp_path: Path):
    import keras

    inputs = keras.Input((3, 16, 8))
    x = keras.layers.Conv2D(4, 4, 4, data_format="channels_first", name="patches")(inputs)
    x = keras.layers.Permute((2, 3, 1), name="turn")(x)
    x = keras.layers.Reshape((8, 4), name="flat")(x)
    x = keras.layers.MultiHeadAttention(1, 4, name="mix", dtype="mixed_float16")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    outputs = [keras.layers.Dense(2, name="kind")(x), keras.layers.Dense(3, name="colour")(x)]
    path = tmp_path / "two.keras"
    keras.Model(inputs, outputs, name="two").save(path)

    result = call("inspect", path)
    assert result.exit_code == 1
    assert "output 0 `kind` of shape (batch, 2); output 1 `colour` of shape" in result.stderr
    result = call("inspect", path, "--output", "colour")
    assert result.exit_code == 0
    facts, table = result.stdout.split("\n\n")
    assert facts.splitlines()[1:] == [
        "input       16 × 8 × 3, float32; scaling is up to --scaling, default none (0 to 255);"
        " turned for the model, which takes channels first",
        "outputs     3, logits (detected; --head overrides it), of the output `colour`",
        "classes     3",
        "explained   The logit of the class: the raw output.",
        "precision   float16 in predictions, as saved; float32 in heat-maps",
        "layers      7 spatial, 4 explained",
    ]
    cells = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    assert [row[1:3] + row[4:] for row in cells if len(row) == 6][1:] == [
        ["4×2", "4", "Conv2D", "patches"],
        ["4×2", "4", "Permute", "turn"],
        ["4×2", "4", "Reshape, tokens", "flat"],
        ["4×2", "4", "MultiHeadAttention, tokens", "mix"],
    ]
    assert {row[-1] for row in cells if len(row) > 6} == {"skipped: inside attention"}


def test_inspect_takes_the_users_word_for_the_head(drawn_model: Path):
    result = call("inspect", drawn_model, "--head", "logit")
    assert "outputs     1, logit (as you say)" in result.stdout
