"""How much accuracy falls when correct images are changed a little."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.report import charts
from audit.report.run_data import RunData
from audit.report.views.causes import SIGNIFICANT
from audit.report.views.parts import Estimate, Site, defined, make_site, plain_estimate
from audit.schemas import records

STRENGTHS = {1: "mild", 2: "medium", 3: "strong"}


@dataclass(frozen=True)
class ProbeCell:
    """A transformation at one strength: the share of correct images that turn wrong."""

    strength: int
    parameter: str
    n_images: int
    n_right: int
    fall: Estimate
    q_value: float | None
    is_significant: bool


@dataclass(frozen=True)
class ProbeRow:
    """A transformation at all strengths, the mildest first."""

    name: str
    cells: tuple[ProbeCell, ...]
    worst: float


@dataclass(frozen=True)
class ProbesPage:
    """All transformations, the one that costs most first."""

    site: Site
    rows: tuple[ProbeRow, ...]
    chart: charts.Chart | None
    strengths: tuple[str, ...]
    n_images: int
    is_missing: bool


def probes_page(data: RunData) -> ProbesPage:
    """Return the page on robustness, its chart drawn."""
    rows = _probe_rows(data)
    drawing = [
        {
            "transformation": row.name,
            "strength": STRENGTHS[cell.strength],
            "fall": cell.fall.value,
            "low": cell.fall.low,
            "high": cell.fall.high,
        }
        for row in rows
        for cell in row.cells
    ]
    label = "Share of correct images that turn wrong, by transformation and strength."
    return ProbesPage(
        site=make_site(data),
        rows=rows,
        chart=charts.fall_chart(drawing, tuple(STRENGTHS.values()), label) if drawing else None,
        strengths=tuple(STRENGTHS.values()),
        n_images=max((cell.n_images for row in rows for cell in row.cells), default=0),
        is_missing="probes" in data.diagnosis.missing,
    )


def _probe_rows(data: RunData) -> tuple[ProbeRow, ...]:
    by_name: dict[str, list[ProbeCell]] = {}
    ordered = data.diagnosis.probes.sort_values(["transformation", "strength"], kind="stable")
    for row in records(ordered):
        by_name.setdefault(str(row["transformation"]), []).append(_probe_cell(row))
    rows = [
        ProbeRow(name, tuple(cells), max(cell.fall.value or 0.0 for cell in cells))
        for name, cells in by_name.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.worst, row.name)))


def _probe_cell(row: Mapping[str, Any]) -> ProbeCell:
    return ProbeCell(
        strength=int(row["strength"]),
        parameter=str(row["parameter"]),
        n_images=int(row["n_images"]),
        n_right=int(row["n_right"]),
        fall=plain_estimate(row["fall"], row["fall_low"], row["fall_high"]),
        q_value=defined(row["q_value"]),
        is_significant=row["q_value"] < SIGNIFICANT,
    )
