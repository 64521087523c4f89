"""Q1's projections: principal components, t-SNE and UMAP of the points, as linked panels and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foresight.reports import figures
from foresight.reports.page import Figure, number_text
from foresight.reports.projector import Projector, projector

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

MOST_PANELS = 12
HOW = {
    "t-SNE": "t-SNE (perplexity 30, started from the components)",
    "UMAP": "UMAP (15 neighbours, started from the components)",
}

Panels = Mapping[str, Mapping[str, Any]]


def linked_panels(inputs: Q1Inputs) -> Projector | None:
    """Return the panels in which a sample is found again by hovering over it; None without projections."""
    if not inputs.projections:
        return None
    every = dict(_some(inputs.projections))
    for method, held in inputs.layouts.items():
        every |= {f"{point}, {method}": panel for point, panel in _some(held).items()}
    return projector(every, inputs.labels, inputs.keys, inputs.thumbnails)


def scatters(inputs: Q1Inputs) -> list[Figure]:
    """Return a figure of every kind of projection, coloured by label."""
    n = len(inputs.labels)
    made = []
    if inputs.projections:
        shown = _some(inputs.projections)
        made.append(
            Figure.of(
                figures.projections(shown, inputs.labels),
                name="projections",
                wide=True,
                twin=True,
                alt=f"Scatter of {n} samples on their first two principal components at "
                f"{', '.join(shown)}, coloured by label",
                caption=f"First two principal components of the pooled latents, n = {n}, one "
                f"panel for {len(shown)} of {len(inputs.projections)} points; each axis names its "
                "share of the variance. No number is measured in a projection.",
            )
        )
    for method, held in inputs.layouts.items():
        shown = _some(held)
        trust = [float(e["trustworthiness"]) for e in shown.values()]
        made.append(
            Figure.of(
                figures.projections(shown, inputs.labels, axes=(f"{method} 1", f"{method} 2")),
                name=method.lower().replace("-", ""),
                wide=True,
                alt=f"{method} of {n} samples at {', '.join(shown)}, coloured by label",
                caption=f"{HOW[method]}, n = {n}: distances between clusters and their sizes mean nothing. "
                "Trustworthiness of neighbours, 0.5 for a random layout: "
                f"{number_text(min(trust))} to {number_text(max(trust))}.",
            )
        )
    return made


def _some(held: Panels) -> Panels:
    """Return at most `MOST_PANELS` of them, evenly spaced from the first point to the last."""
    points = list(held)
    count = min(len(points), MOST_PANELS)
    kept = [points[round(i * (len(points) - 1) / max(count - 1, 1))] for i in range(count)]
    return {p: held[p] for p in kept}
