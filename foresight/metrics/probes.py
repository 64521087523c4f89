"""Ridge probe: how much of one space is a linear function of the other, on groups it never saw?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import NAN, Estimate
from foresight.metrics.ridge_folds import Fold, best_penalty, taken_apart
from foresight.metrics.space import Space, as_pair
from foresight.metrics.statistics import (
    calibrated,
    cluster_bootstrap,
    gathered,
    permutation_p,
    shuffled_partner,
)
from foresight.metrics.threads import one_thread

PENALTIES = tuple(10.0**e for e in range(-5, 5))
"""Ridge penalties tried, in units of the mean squared length of a centred training row."""


def ridge_probe(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    components: int = 50,
    permutations: int = 999,
    shuffles: int = 3,
    resamples: int = 1000,
    seed: int = 0,
) -> Mapping[str, Estimate]:
    """Return 'r2' and 'cosine' of predicting `y` from `x` [sample feature] by ridge regression, out of fold.

    Each fold of groups is predicted by a ridge (free intercept) trained on the others, its penalty chosen on
    a validation part of those training groups; each sample is predicted once. R² is 1 - Σ|y - ŷ|² / Σ|y - ȳ|²
    with ȳ the *training* mean, summed over features (variance-weighted), so the mean predictor scores exactly
    0 and a bad probe less than 0. Cosine is the mean over samples between ŷ and y, training mean removed.
    Unchanged by rotating or scaling either side.

    Controls of both: 'train mean' (the mean predictor, scored about the test mean as is usual), 'random
    projection' (an untrained Gaussian map, only its scale fitted), 'PCA-reduced random projection' (the same
    after PCA to `components`), 'identity after PCA' (principal components paired by rank; the axes of these
    two see all samples, which can only flatter the baseline) and 'shuffled
    pairs' (the whole probe again on pairs shuffled by group, mean of `shuffles`; also `null`). For r2 also
    'uniform' (plain mean over features of `y`) and 'calibrated'.

    The interval draws groups with replacement for the given predictions and is widened by
    √(1 + folds/(folds - 1)) because the training sets overlap: Nadeau & Bengio (2003). Without that, 79 to 92
    of 100 intervals covered the mean of repeated samples, with it 93 to 99. p of r2 shuffles pairs by group,
    at a fixed penalty of 1, because a penalty chosen on the true pairs would make the true pairs special.
    """
    found = ridge_probes(
        x,
        [y],
        groups=groups,
        folds=folds,
        penalties=penalties,
        components=components,
        permutations=permutations,
        shuffles=shuffles,
        resamples=resamples,
        seed=seed,
    )
    return next(found)


def ridge_probes(
    x: Any,
    targets: Iterable[Any],
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    **options: int,
) -> Iterator[Mapping[str, Estimate]]:
    """Yield `ridge_probe` of `x` and each of `targets`, with its `options`; the folds of a Space `x` are taken
    apart once for all of them."""
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"ridge penalties are positive, but got {list(penalties)}")
    source, plan = None, []
    for y in targets:
        a, b = as_pair(x, y, groups)
        if why := _undefined(a, b, folds):
            undefined = Estimate.undefined(why, n=len(a), n_effective=a.n_groups)
            yield {"r2": undefined, "cosine": undefined}
            continue
        if a is not source:  # a plain array, or equal samples of both sides have joined their groups
            source, plan = a, taken_apart(a, folds=folds, seed=seed)
        yield _probe(a, b, plan, penalties, seed=seed, **options)


def _undefined(a: Space, b: Space, folds: int) -> str:
    if a.n_groups < 2 * folds:
        return f"a probe with {folds} folds needs at least {2 * folds} groups, but got {a.n_groups}"
    for side, space in (("first", a), ("second", b)):
        if space.constant:
            return f"the {side} space is constant: all {len(a)} samples are one point"
    return ""


@one_thread()
def _probe(
    a: Space,
    b: Space,
    plan: Sequence[Fold],
    penalties: Sequence[float],
    *,
    components: int = 50,
    permutations: int = 999,
    shuffles: int = 3,
    resamples: int = 1000,
    seed: int,
) -> Mapping[str, Estimate]:
    n, g, folds = len(a), a.n_groups, len(plan)
    points = b.points
    gram = b.gram if 2 * points.shape[1] > n else None

    chosen = [best_penalty(fold, points, gram, penalties) for fold in plan]
    target, error = _about_training_mean(plan, points), _residual(plan, chosen, points)
    sums = _by_group(np.square(error).sum(1), np.square(target).sum(1), a.groups)
    value = 1.0 - float(sums[:, 0].sum() / sums[:, 1].sum())
    low, high = _widened(sums, lambda t: 1.0 - t[:, 0] / t[:, 1], folds, resamples=resamples, seed=seed)
    cosines = _cosines(target - error, target)
    per_group = _by_group(cosines, np.ones(n), a.groups)
    c_low, c_high = _widened(
        per_group, lambda t: t[:, 0] / t[:, 1], folds, bounds=(-1.0, 1.0), resamples=resamples, seed=seed
    )

    baselines = _baselines(a, b, plan, components=components, seed=seed)
    usual = np.concatenate([_about_test_mean(target[fold.test]) for fold in plan])
    baselines["train mean"] = (1.0 - float(np.square(target).sum() / np.square(usual).sum()), 0.0)
    shuffled = [_refit(plan, points, gram, penalties, a.groups, seed=seed + 1 + i) for i in range(shuffles)]
    null = np.array(shuffled).mean(axis=0) if shuffled else np.full(2, math.nan)
    baselines["shuffled pairs"] = (float(null[0]), float(null[1]))

    fixed = _residual(plan, [1.0] * folds, points)
    power = 1.0 - float(np.square(fixed).sum() / np.square(target).sum())
    p = (
        _pairing_p(power, plan, b.gram, a.groups, permutations=permutations, seed=seed)
        if permutations
        else NAN
    )
    each = (target, error) if points.shape[1] == b.width else _of_features(plan, chosen, b)
    uniform, left_out = _uniform(*each)
    detail = {
        "penalties": chosen,
        "folds": folds,
        "constant outputs": left_out,
        "r2 at penalty 1": power,
    }
    return {
        "r2": Estimate(
            value=value,
            low=low,
            high=high,
            null=float(null[0]),
            p=p,
            n=n,
            n_effective=g,
            controls={
                **{name: pair[0] for name, pair in baselines.items()},
                "uniform": uniform,
                "calibrated": calibrated(value, float(null[0])),
            },
            detail=detail,
        ),
        "cosine": Estimate(
            value=float(per_group[:, 0].sum() / per_group[:, 1].sum()),
            low=c_low,
            high=c_high,
            null=float(null[1]),
            n=n,
            n_effective=g,
            controls={
                **{name: pair[1] for name, pair in baselines.items() if name != "train mean"},
                "train mean, not centred": _raw_mean_cosine(plan, b),
            },
            detail=detail,
        ),
    }


def _stack(
    plan: Sequence[Fold], weights: Sequence[np.ndarray | None], n: int
) -> Float[np.ndarray, "sample sample"]:
    """Return R with R y = y - ŷ, each ŷ from the fold that held it out; None is the mean predictor."""
    out = np.zeros((n, n))
    for fold, w in zip(plan, weights, strict=True):
        size = len(fold.train)
        if w is None:
            block = np.full((len(fold.test), size), -1.0 / size)
        else:
            block = -w - (1.0 - w.sum(axis=1, keepdims=True)) / size
        out[np.ix_(fold.test, fold.train)] = block
        out[fold.test, fold.test] = 1.0
    return out


def _residual(
    plan: Sequence[Fold], penalties: Sequence[float], values: Float[np.ndarray, "sample feature"]
) -> Float[np.ndarray, "sample feature"]:
    """Return y - ŷ, each ŷ from the fold that held it out."""
    out = np.empty_like(values)
    for fold, penalty in zip(plan, penalties, strict=True):
        out[fold.test] = fold.residual(penalty, values)
    return out


def _refit(
    plan: Sequence[Fold],
    points: np.ndarray,
    gram: np.ndarray | None,
    penalties: Sequence[float],
    groups: np.ndarray,
    *,
    seed: int,
) -> tuple[float, float]:
    partner = shuffled_partner(groups, rng=np.random.default_rng([seed, 9]))
    points = points[partner]
    gram = None if gram is None else gram[np.ix_(partner, partner)]
    chosen = [best_penalty(fold, points, gram, penalties) for fold in plan]
    target, error = _about_training_mean(plan, points), _residual(plan, chosen, points)
    cosine = float(_cosines(target - error, target).mean())
    return 1.0 - float(np.square(error).sum() / np.square(target).sum()), cosine


def _pairing_p(
    value: float,
    plan: Sequence[Fold],
    gram: np.ndarray,
    groups: np.ndarray,
    *,
    permutations: int,
    seed: int,
) -> float:
    fixed = _stack(plan, [fold.weights(1.0) for fold in plan], len(gram))
    mean_only = _stack(plan, [None] * len(plan), len(gram))
    # Σ|R P y|² = Σ_ij (RᵀR)_ij L_π(i)π(j): one inner product of pair matrices for every shuffle
    upper, lower = fixed.T @ fixed, mean_only.T @ mean_only
    if int(groups.max()) + 1 == len(groups):
        errors, totals = gathered(gram, upper, lower, permutations=permutations, seed=seed).T
    else:
        rng = np.random.default_rng([seed, 3])
        draws = [shuffled_partner(groups, rng=rng) for _ in range(permutations)]
        errors = np.array([np.vdot(gram[np.ix_(d, d)], upper) for d in draws])
        totals = np.array([np.vdot(gram[np.ix_(d, d)], lower) for d in draws])
    return permutation_p(value, 1.0 - errors / totals)


def _widened(
    totals: Float[np.ndarray, "group 2"],
    ratio: Callable[[np.ndarray], np.ndarray],
    folds: int,
    *,
    bounds: tuple[float, float] = (-math.inf, 1.0),
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    low, high = cluster_bootstrap(totals, ratio, resamples=resamples, seed=seed)
    value = float(ratio(totals.sum(axis=0, keepdims=True))[0])
    factor = math.sqrt(1.0 + folds / (folds - 1))
    low, high = value - factor * (value - low), value + factor * (high - value)
    return (max(low, bounds[0]), min(high, bounds[1])) if math.isfinite(low) else (low, high)


def _baselines(
    a: Space, b: Space, plan: Sequence[Fold], *, components: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return (R², cosine) of the untrained maps; their one scale comes from each training part."""
    xs, ys = a.coordinates, b.coordinates
    kx, k = min(components, xs.shape[1]), min(components, xs.shape[1], ys.shape[1])
    gaussian = np.random.default_rng([seed, 10]).standard_normal((xs.shape[1], ys.shape[1]))
    paired = np.zeros_like(ys)
    paired[:, :k] = xs[:, :k]
    guesses = {
        "random projection": xs @ gaussian,
        "PCA-reduced random projection": xs[:, :kx] @ gaussian[:kx],
        "identity after PCA": paired,
    }
    target = _about_training_mean(plan, ys)
    total, out = float(np.square(target).sum()), {}
    for name, guess in guesses.items():
        scaled = np.empty_like(target)
        for fold in plan:
            centred = guess - guess[fold.train].mean(axis=0)
            seen = centred[fold.train]
            size = float(np.vdot(seen, seen))
            slope = float(np.vdot(seen, ys[fold.train])) / size if size > 0 else 0.0
            scaled[fold.test] = slope * centred[fold.test]
        r2 = 1.0 - float(np.square(target - scaled).sum()) / total
        out[name] = (r2, float(_cosines(scaled, target).mean()))
    return out


def _of_features(plan: Sequence[Fold], penalties: Sequence[float], b: Space) -> tuple[np.ndarray, np.ndarray]:
    """Return y - ȳ and y - ŷ of the features themselves, in their precision."""
    values = b.values - b.mean.astype(b.values.dtype)
    return _about_training_mean(plan, values), _residual(plan, penalties, values)


def _uniform(target: np.ndarray, error: np.ndarray) -> tuple[float, int]:
    """Return R² averaged over features, and how many constant ones had to be left out."""
    total = np.square(target).sum(axis=0, dtype=np.float64)
    good = total > 1e-9 * total.max()
    missed = np.square(error).sum(axis=0, dtype=np.float64)
    return float((1.0 - missed[good] / total[good]).mean()), int((~good).sum())


def _raw_mean_cosine(plan: Sequence[Fold], b: Space) -> float:
    """Return the cosine of predicting the training mean, nothing removed: what a careless cosine rewards."""
    out = [
        _cosines(np.broadcast_to(b.values[f.train].mean(axis=0), (len(f.test), b.width)), b.values[f.test])
        for f in plan
    ]
    return float(np.concatenate(out).mean())


def _cosines(guess: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, " sample"]:
    norms = np.linalg.norm(guess, axis=1) * np.linalg.norm(truth, axis=1)
    return np.einsum("ij,ij->i", guess, truth) / np.where(norms > 0, norms, np.inf)


def _about_training_mean(
    plan: Sequence[Fold], values: Float[np.ndarray, "sample feature"]
) -> Float[np.ndarray, "sample feature"]:
    """Return each sample less the mean of the training part that its fold was predicted from."""
    out = np.empty_like(values)
    for fold in plan:
        out[fold.test] = values[fold.test] - values[fold.train].mean(axis=0)
    return out


def _about_test_mean(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _by_group(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, "group 2"]:
    return np.stack([np.bincount(groups, weights=first), np.bincount(groups, weights=second)], axis=1)
