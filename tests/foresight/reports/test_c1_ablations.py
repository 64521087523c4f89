"""C1.6's figures: dots for a few runs, lines for crossed ones, and no number left out of the text beside them."""

from __future__ import annotations

from typing import Any

from foresight.reports.c1_ablations import ablations


def run(point: str, design: str, count: int, value: float | None = 0.5) -> dict[str, Any]:
    return {
        "name": "latent R²", "model": "m", "point": point, "variant": "trained", "value": value, "low": None,
        "high": None, "n": 9, "detail": {"design": design, "trained on": count},
    }  # fmt: skip


def test_crossed_runs_are_lines_along_the_points_and_along_the_samples_at_the_judged_point() -> None:
    runs = [
        run(point, design, count, value=count / 100 + (point == "b") / 1000)
        for point in ("a", "b") for design in ("linear", "mlp:8") for count in (10, 20, 40)
    ]  # fmt: skip
    along, samples = ablations(runs, best="b")
    assert "with 40 samples, along the points (a, b): linear 0.400, 0.401; mlp:8 0.400, 0.401" in along.alt
    assert "at b, along the training samples (10, 20, 40): linear 0.101, 0.201, 0.401" in samples.alt


def test_a_factor_changed_at_a_time_is_a_dot_a_run() -> None:
    runs = [
        run("a", "linear", 40),
        run("b", "linear", 40),
        run("a", "mlp:8", 40),
        run("a", "linear", 10, None),
    ]
    (dots,) = ablations(runs, best="a")
    assert all(
        told in dots.alt for told in ("a linear n=40", "b linear n=40", "a mlp:8 n=40", "a linear n=10")
    )
