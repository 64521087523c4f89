"""The measured rows of C1, from the scores of rebuilt pictures: the linear probe, the merger, the adapters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foresight.metrics import Space, silhouette
from foresight.metrics.estimate import Estimate
from foresight.studies.reconstruction import (
    MEAN_IMAGE,
    ONE_COLOUR,
    POOLED,
    RANDOM,
    ROUND_TRIP,
    SHUFFLED,
    TOKENS,
    Measurement,
    Scores,
    gained,
    judged,
    latent_r2,
)

Place = tuple[str, str, str]
"""(model, point, variant)."""
TRAINED = "trained"
LINEAR = "linear probe"
FITTED = ("penalty", "design", "grid", "placed", "blocks", "parameters", "trained on")
NUMBERS = ("distance", "SSIM", "PSNR (dB)")


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What the working stages left: scores by place and reading, and of the references."""

    places: Mapping[Place, Mapping[str, Any]]
    """Readings by name, each with the scores of `Scores.to_json` and what was fitted; {'why': …} where none."""
    references: Mapping[str, Any]
    groups: Sequence[Any]
    """Of the scored samples."""
    seed: int = 0

    @property
    def distance(self) -> str:
        """What the perceptual distance is called."""
        return str(self.references.get("distance", "perceptual distance"))

    @property
    def why(self) -> str:
        """Why nothing could be scored; '' when it could."""
        return str(self.references.get("why", ""))

    def scores(self, place: Place, reading: str) -> Scores | None:
        """Return the scores at a place; None where they could not be made."""
        found = self.places.get(place, {})
        return Scores.from_json(found[reading]) if reading in found else None

    def constants(self) -> dict[str, Scores]:
        """Return the scores of what was made without a VLM."""
        return {k: Scores.from_json(self.references[k]) for k in (ROUND_TRIP, MEAN_IMAGE, ONE_COLOUR)}


def projection(
    spaces: Mapping[Place, Space], labels: Sequence[str | None], *, seed: int
) -> list[Measurement]:
    """C1.1: do classes separate in the pooled latents? Silhouette by cosine."""
    rows = []
    for place, space in spaces.items():
        if any(label is None for label in labels) or len(set(labels)) < 2:
            why = "a silhouette needs a label on every sample and two classes"
            found = Estimate.undefined(why, n=len(space), n_effective=space.n_groups)
        else:
            found = silhouette(space, labels, seed=seed)
        rows.append(row_of("C1.1", "silhouette", place, found))
    return rows


def linear_probe(rebuilt: Rebuilt) -> list[Measurement]:
    """C1.2: pictures rebuilt by a linear map of tokens in place, and the R² of the latents they come from."""
    rows: list[Measurement] = []
    for place in rebuilt.places:
        rows += _place_rows("C1.2", rebuilt, place, TOKENS)
    return rows


def merger(rebuilt: Rebuilt, order: Sequence[str]) -> list[Measurement]:
    """C1.3: what changes from the last point before tokens are merged to the first after, each on its own grid.

    `order` holds the measured points by depth. The merger lies where the token grid gets coarser.
    """
    rows: list[Measurement] = []
    for model, variant in dict.fromkeys((m, v) for m, _, v in rebuilt.places):
        mine = [p for p in order if (model, p, variant) in rebuilt.places]
        pair = _around_merger(rebuilt, model, variant, mine)
        names = [rebuilt.distance, *NUMBERS[1:]]
        if isinstance(pair, str):
            place = (model, "", variant)
            rows += [row_of("C1.3", f"{n}, after − before", place, undefined(pair, rebuilt)) for n in names]
            continue
        before, after = ((model, p, variant) for p in pair)
        a, b = rebuilt.scores(before, TOKENS), rebuilt.scores(after, TOKENS)
        assert a is not None
        assert b is not None
        found = gained(a, b, groups=rebuilt.groups, distance=rebuilt.distance, seed=rebuilt.seed)
        grids = {p: rebuilt.places[model, p, variant][TOKENS]["grid"] for p in pair}
        for name, estimate in found.items():
            told = replace(estimate, detail={**estimate.detail, "grids": grids, "before": pair[0]})
            rows.append(row_of("C1.3", f"{name}, after − before", after, told))
    return rows


def best_point(rebuilt: Mapping[Place, float | None]) -> Place | None:
    """Return the trained place whose map predicts the choosing fold best; None when none does.

    The choosing fold is no part of what is scored, so the numbers of the best point do not lean upwards.
    """
    held = {p: r for p, r in rebuilt.items() if r is not None and p[2] == TRAINED} or {
        p: r for p, r in rebuilt.items() if r is not None
    }
    return max(held, key=lambda p: held[p], default=None)  # type: ignore[arg-type,return-value]


def row_of(row: str, name: str, place: Place, estimate: Estimate, **more: Any) -> Measurement:
    """Return an estimate as the plain measurement of a place."""
    model, point, variant = place
    return {"row": row, "name": name, "model": model, "point": point, "variant": variant,
            **estimate.to_json(), **more}  # fmt: skip


def undefined(why: str, rebuilt: Rebuilt) -> Estimate:
    """Return the estimate of a number that could not be made."""
    return Estimate.undefined(why, n=len(rebuilt.groups), n_effective=len(set(rebuilt.groups)))


def pipeline(
    rebuilt: Rebuilt, adapted: Mapping[str, Any], twin: Mapping[str, Any] | None = None
) -> list[Measurement]:
    """C1.5: pictures from a trained adapter and the decoder, at the point it was trained for.

    `adapted` and `twin` hold what the adapter of the model and that of its random-weights copy left. The linear
    probe at the same point stands among the controls.
    """
    if TOKENS not in adapted:
        why = rebuilt.why or str(adapted.get("why", "no adapter was trained"))
        names = [rebuilt.distance, *NUMBERS[1:], "latent R²"]
        return [row_of("C1.5", n, next(iter(rebuilt.places)), undefined(why, rebuilt)) for n in names]
    place: Place = tuple(adapted[TOKENS]["place"])
    held = rebuilt.places.get(place, {})
    beside = {k: held[k] for k in (POOLED, SHUFFLED) if k in held}
    beside |= {LINEAR: held[TOKENS]} if TOKENS in held else {}
    beside |= {RANDOM: twin[TOKENS]} if twin and TOKENS in twin else {}
    return _rows_of("C1.5", rebuilt, place, adapted[TOKENS], beside)


def ablations(rebuilt: Rebuilt, runs: Sequence[Mapping[str, Any]]) -> list[Measurement]:
    """C1.6: the same numbers by point, by adapter and by training samples; each run named in `target`."""
    rows: list[Measurement] = []
    seen = set()
    for run in runs:
        if TOKENS not in run:
            continue
        mine = run[TOKENS]
        key = (*mine["place"], mine["design"], mine["trained on"])
        if key in seen:
            continue
        seen.add(key)
        place: Place = tuple(mine["place"])
        found = _rows_of("C1.6", rebuilt, place, mine, {})
        target = f"{mine['design']}, {mine['trained on']} samples"
        rows += [{**m, "target": target} for m in found]
    return rows


def _place_rows(row: str, rebuilt: Rebuilt, place: Place, reading: str) -> list[Measurement]:
    held = rebuilt.places[place]
    if reading not in held:
        why = rebuilt.why or str(held.get("why", "it was not rebuilt"))
        names = [rebuilt.distance, *NUMBERS[1:], "latent R²"]
        return [row_of(row, n, place, undefined(why, rebuilt)) for n in names]
    beside = {k: held[k] for k in (POOLED, SHUFFLED) if k in held}
    model, point, variant = place
    twin = rebuilt.places.get((model, point, RANDOM), {})
    if variant == TRAINED and TOKENS in twin:
        beside[RANDOM] = twin[TOKENS]
    return _rows_of(row, rebuilt, place, held[reading], beside)


def _rows_of(
    row: str, rebuilt: Rebuilt, place: Place, mine: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]]
) -> list[Measurement]:
    """Return the numbers of what was rebuilt at a place, each beside the constants and what is in `beside`."""
    controls = rebuilt.constants() | {k: Scores.from_json(v) for k, v in beside.items()}
    found = judged(
        Scores.from_json(mine), controls, groups=rebuilt.groups, distance=rebuilt.distance, seed=rebuilt.seed
    )
    found["latent R²"] = latent_r2(
        np.asarray(mine["latents"]), rebuilt.groups, seed=rebuilt.seed,
        controls={k: _r2(v) for k, v in beside.items()},
    )  # fmt: skip
    fitted = {k: mine[k] for k in FITTED if k in mine}
    return [row_of(row, name, place, replace(e, detail={**e.detail, **fitted})) for name, e in found.items()]


def _r2(held: Mapping[str, Any]) -> float:
    error, spread = np.asarray(held["latents"]).sum(axis=0)
    return 1.0 - float(error / spread) if spread > 0 else math.nan


def _around_merger(
    rebuilt: Rebuilt, model: str, variant: str, points: Sequence[str]
) -> tuple[str, str] | str:
    """Return the neighbours between which the grid gets coarser; the reason when there are none."""
    if rebuilt.why:
        return rebuilt.why
    counts = []
    for point in points:
        found = rebuilt.places[model, point, variant]
        if TOKENS in found:
            counts.append((point, math.prod(found[TOKENS]["grid"])))
    for (a, fine), (b, coarse) in itertools.pairwise(counts):
        if coarse < fine:
            return a, b
    return "no two measured points have a token grid that gets coarser; ask for points before and after the merger"
