"""How a run ended: words for the person who reads them in the morning, an exit code for scripts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audit.errors import AuditError
from audit.places import Place
from audit.results import Run

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_LEFT_OUT = 3
EXIT_GATE = 4
"""A limit of `--fail-under` was missed; it is said before what was left out."""


@dataclass(frozen=True)
class Ending:
    """What became of a run.

    Attributes:
        status: "done", "failed" or "stopped".
        exit_code: of the command.
        notes: a label and a sentence for each thing that a person should know.
        summary: what `show --json` prints, as far as the run came; with the status, the exit code,
            the run's folder and the error's text, or `None`.
    """

    status: str
    exit_code: int
    notes: tuple[tuple[str, str], ...]
    summary: dict[str, Any]


def end_of(run: Run) -> Ending:
    """Say how a run ended that came to its end."""
    left_out, gates = list(_left_out(run)), run.gates
    missed = any(not gate.passed for gate in gates)
    notes = [("LEFT OUT", text) for text in left_out]
    notes += [("gate kept" if gate.passed else "GATE MISSED", f"{gate}") for gate in gates]
    if missed:
        exit_code, verdict = EXIT_GATE, "the model misses a limit of `--fail-under`"
    elif left_out:
        exit_code, verdict = EXIT_LEFT_OUT, "but something was left out"
    else:
        exit_code, verdict = EXIT_DONE, "nothing was left out"
    suffix = f" (exit code {exit_code})" if exit_code else ""
    notes.append(("finished", f"{verdict}{suffix}"))
    summary = run.summary() | _how("done", exit_code, run.path, None)
    return Ending("done", exit_code, tuple(notes), summary)


def failure(exc: BaseException, out: Place, exit_code: int = EXIT_ERROR) -> Ending:
    """Say how a run ended that an error, or a signal, ended.

    Args:
        exc: what was raised.
        out: the run folder; it need not exist.
        exit_code: of the command.
    """
    status = "failed" if isinstance(exc, Exception) else "stopped"
    text = str(exc) if isinstance(exc, AuditError) else f"{type(exc).__name__}: {exc}"
    try:
        summary = Run(out).summary()
    except (AuditError, OSError, ValueError, KeyError):  # So far, or so broken, as it is.
        summary = {}
    return Ending(status, exit_code, (), summary | _how(status, exit_code, out, text))


def _how(status: str, exit_code: int, path: Place, error: str | None) -> dict[str, Any]:
    return {"status": status, "exit_code": exit_code, "run": str(path), "error": error}


def _left_out(run: Run) -> Iterator[str]:
    data, allowed = run.manifest["data"], run.manifest["config"]["max_unreadable"]
    n_unreadable, n_undefined = data["n_unreadable"], data.get("n_undefined", 0)
    if n_unreadable + n_undefined > allowed:
        passes = f"`--max-unreadable` lets {allowed} pass"
        named = "the report and `unreadable.parquet` name them"
        if n_unreadable:
            yield f"{n_unreadable} files could not be read, {passes}; {named}"
        if n_undefined:
            yield f"the model's scores of {n_undefined} images are no numbers, {passes}; {named}"
    if any(warning["kind"] == "unexplained" for warning in run.manifest["warnings"]):
        yield "images without a heat-map; the warning above says why"
    if any(warning["kind"] == "untested" for warning in run.manifest["warnings"]):
        yield "errors whose causes were not tested; the warning above says why"
