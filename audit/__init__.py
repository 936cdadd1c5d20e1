"""Audit an image classifier: where it is wrong, where it looked, and what to do about it.

Importing this package loads neither TensorFlow nor pandas; the public names load what they need
when they are first used.
"""

from typing import TYPE_CHECKING, Any

from audit.errors import AuditError

if TYPE_CHECKING:
    from audit.pipeline import run
    from audit.results import Run

__version__ = "0.1.0"
__all__ = ["AuditError", "Run", "__version__", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from audit.pipeline import run

        return run
    if name == "Run":
        from audit.results import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
