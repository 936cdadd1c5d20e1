"""What may import what, and what stays unloaded until it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh process and return the top-level modules that it leaves loaded."""
    code = f"{code}\nimport sys; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


def command(*arguments: str) -> str:
    """Return code that calls the command line and survives its exit."""
    return (
        "import audit.cli\n"
        f"try: audit.cli.main({list(arguments)!r})\n"
        "except SystemExit as exc: assert exc.code in (0, None), exc.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import audit",
        command("--help"),
        command("run", "--help"),
        command("demo", "--help"),
        command("find", "--help"),
        command("compare", "--help"),
        command("--version"),
    ],
)
def test_importing_and_help_load_nothing_heavy(code: str):
    loaded = loaded_after(code)
    assert "audit" in loaded
    assert not loaded & {"tensorflow", "keras", "pandas", "numpy", "sklearn", "scipy", "cv2", "ray"}


def test_rendering_and_showing_need_no_tensorflow(drawn_run: Path):
    for code in (
        "import audit.report.render",
        command("show", str(drawn_run)),
        command("show", str(drawn_run), "--json"),
        "import audit; audit.run; audit.Run",
        "import audit.compare.compare_folder, audit.compare.regressions",
        "import audit.report.comparison.compare_report",
    ):
        assert not loaded_after(code) & {"tensorflow", "keras"}, code


def test_the_report_command_needs_no_tensorflow(drawn_run: Path, tmp_path: Path):
    import shutil

    run = shutil.copytree(drawn_run, tmp_path / "run")
    loaded = loaded_after(command("report", str(run)))
    assert "jinja2" in loaded
    assert not loaded & {"tensorflow", "keras"}


def test_data_flows_one_way():
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [tool, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_names_are_there():
    code = "import audit; assert all(hasattr(audit, name) for name in audit.__all__), audit.__all__"
    loaded_after(code)
    loaded_after(
        "import audit\ntry: audit.nothing\nexcept AttributeError as e: assert 'nothing' in str(e)"
    )
