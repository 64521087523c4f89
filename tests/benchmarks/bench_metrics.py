"""Time the measures against the libraries people would use instead, in one run: ratios, not seconds.

Run by hand: `python -m tests.benchmarks.bench_metrics [--samples 1000] [--widths 3584 8192] [--threads 2] [--large]`.
CPU seconds of this process; a ratio below 1 means ours is faster. Both sides give the same number, and both are
printed; nulls, intervals and noise controls, which the others do not have, are left out of these times. `q1` is
everything one Q1 point needs, with intervals and permutation nulls.

21 November 2026, one thread of a busy AMD EPYC, median ratio of 2 to 15 rounds taken in turn, to the fastest other:

    samples, widths          CKA, biased       Recall@10      Spearman, in blocks   ridge probe
    1,000 x 3,584, 8,192     numpy f32  1.0    sklearn 1.0    numpy f32  0.7        numpy f32  0.6
    1,000 x 256, 128         numpy f32  0.7    faiss   1.9    numpy f32  0.4        numpy f32  1.7, f64 1.4
    10,000 x 256, 128        numpy f32  0.02   faiss   2.5    numpy f32  0.14       numpy f32  3.7

Slower where faiss has narrow rows: Recall@10 settles ties and gives mean reciprocal ranks as well; at 10,000 it is
`knn_blockwise`, which does not. Slower where ridge has narrow rows: the probe fits in float64 and measures three
untrained maps on the way; scikit-learn's RidgeCV takes twice as long as the probe. `rsa_spearman` itself ranks
distances in float64: 1.5 of numpy in float32 at 3,584 and 8,192 and 0.9 of it in float64, 1.1 at 256 and 128.

2 x 100,000 x 4,096 float32 on disk (`--large`, 21 November 2026, two cores of an AMD EPYC that had seven to ten times
as much work): CKA 111 s of CPU, 530 s of wall clock, peak 1.3 GiB; neighbour overlap at k = 10 1,005 s, 3,354 s and
0.9 GiB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import foresight.metrics as m
from foresight.metrics.statistics import grouped_folds

BARE: dict[str, Any] = {"permutations": 0, "resamples": 0}


def clock(work: Callable[[], Any], repeat: int) -> tuple[float, float, Any]:
    """Return the least CPU and wall seconds of `repeat` runs, and the last result."""
    best, out = (np.inf, np.inf), None
    for _ in range(repeat):
        cpu, wall = time.process_time(), time.perf_counter()
        out = work()
        spent = (time.process_time() - cpu, time.perf_counter() - wall)
        best = min(best, spent)
    return *best, out


def in_turn(
    sides: dict[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the CPU seconds of each side in every round, one after the other, and each side's value.

    A round that does not count goes before; a side whose library is not installed is told and left out.
    """
    values: dict[str, float] = {}
    for name, work in sides.items():
        try:
            values[name] = work()
        except ImportError as missing:
            print(f"  {name:36s} not installed: {missing.name}")
    seconds: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(rounds):
        for name in values:
            seconds[name].append(clock(sides[name], 1)[0])
    return seconds, values


def planted(n: int, widths: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two float32 spaces that share 12 directions, and 6 classes."""
    rng = np.random.default_rng(0)
    labels, latent = rng.integers(0, 6, n), rng.standard_normal((n, 12))
    latent[:, :3] += 2 * rng.standard_normal((6, 3))[labels]
    spaces = [latent @ rng.standard_normal((12, d)) + 2 * rng.standard_normal((n, d)) for d in widths]
    return spaces[0].astype("f4"), spaces[1].astype("f4"), labels


def against(x: np.ndarray, y: np.ndarray, labels: np.ndarray, *, slow: bool) -> dict[str, dict[str, Any]]:
    """Return, for each measure, ours and theirs as functions without arguments that give the same number."""
    import skdim
    from scipy.spatial import procrustes
    from scipy.spatial.distance import pdist
    from scipy.stats import rankdata, spearmanr
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    given = (x, y)

    def numpy_cka(dtype: str) -> float:
        k, l = (s.astype(dtype) - s.mean(0, dtype=dtype) for s in (x, y))  # noqa: E741
        k, l = k @ k.T, l @ l.T  # noqa: E741
        return float(np.vdot(k, l) / np.linalg.norm(k) / np.linalg.norm(l))

    def torch_cka() -> float:
        import torch

        k, l = (torch.from_numpy(s) for s in (x, y))  # noqa: E741
        k, l = k - k.mean(0), l - l.mean(0)  # noqa: E741
        k, l = k @ k.T, l @ l.T  # noqa: E741
        return float((k * l).sum() / k.norm() / l.norm())

    def numpy_spearman(dtype: str) -> float:
        ranks = []
        for s in (x, y):
            rows = s.astype(dtype) - s.mean(0, dtype=dtype)
            squares = np.square(rows).sum(1)
            squared = squares[:, None] + squares[None, :] - 2 * (rows @ rows.T)
            ranks.append(rankdata(squared[np.triu_indices(len(squared), 1)]))
        return float(np.corrcoef(*ranks)[0, 1])

    def sklearn_recall() -> float:
        a, b = (
            NearestNeighbors(n_neighbors=11, metric="cosine").fit(s).kneighbors(s)[1][:, 1:] for s in (x, y)
        )
        return float(np.mean([len(set(i) & set(j)) / 10 for i, j in zip(a, b, strict=True)]))

    def faiss_recall() -> float:
        import faiss

        found = []
        for s in (x, y):
            unit = s / np.linalg.norm(s, axis=1, keepdims=True)
            index = faiss.IndexFlatIP(unit.shape[1])
            index.add(unit)
            found.append(index.search(unit, 11)[1][:, 1:])
        return float(np.mean([len(set(i) & set(j)) / 10 for i, j in zip(*found, strict=True)]))

    def folds() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        held = grouped_folds(np.arange(len(x)), folds=5, seed=0)
        for f in range(5):
            yield np.flatnonzero(held != f), np.flatnonzero(held == f)

    def out_of_fold(fitted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        error = total = 0.0
        for train, test in folds():
            error += float(np.square(y[test] - fitted(train, test)).sum())
            total += float(np.square(y[test] - y[train].mean(0)).sum())
        return 1 - error / total

    def sklearn_probe() -> float:
        penalties = np.geomspace(1e-5, 1e4, 10) * float(np.square(x - x.mean(0)).sum(1).mean())
        return out_of_fold(
            lambda train, test: RidgeCV(alphas=penalties).fit(x[train], y[train]).predict(x[test])
        )

    def numpy_ridge(
        train: np.ndarray, test: np.ndarray, penalties: np.ndarray, dtype: str
    ) -> Iterator[np.ndarray]:
        x, y = (s.astype(dtype, copy=False) for s in given)
        rows, mean = x[train] - x[train].mean(0), y[train].mean(0)
        if rows.shape[1] < len(rows):
            values, axes = np.linalg.eigh(rows.T @ rows)
            cross, targets = (x[test] - x[train].mean(0)) @ axes, axes.T @ (rows.T @ (y[train] - mean))
        else:
            values, vectors = np.linalg.eigh(rows @ rows.T)
            cross, targets = (x[test] - x[train].mean(0)) @ rows.T @ vectors, vectors.T @ (y[train] - mean)
        scale = np.square(rows).sum(1).mean()
        for penalty in penalties:
            yield (cross / (np.maximum(values, 0) + penalty * scale)) @ targets + mean

    def numpy_fold(train: np.ndarray, test: np.ndarray, dtype: str = "f4") -> np.ndarray:
        penalties, cut = np.geomspace(1e-5, 1e4, 10), len(train) * 4 // 5
        losses = [
            float(np.square(y[train[cut:]] - guess).sum())
            for guess in numpy_ridge(train[:cut], train[cut:], penalties, dtype)
        ]
        return next(numpy_ridge(train, test, penalties[[int(np.argmin(losses))]], dtype))

    none: dict[str, Any] = {"resamples": 0, "noise": False}
    same = min(512, x.shape[1], y.shape[1])  # scipy's Procrustes wants equal widths
    table: dict[str, dict[str, Any]] = {
        "CKA, biased": {
            "ours": lambda: m.cka_blockwise(x, y, part=8, **BARE).controls["biased"],
            "numpy f32": lambda: numpy_cka("f4"),
            "numpy f64": lambda: numpy_cka("f8"),
            "torch f32": torch_cka,
        },
        "RSA Spearman": {
            "ours": lambda: m.rsa_spearman(x, y, **BARE).value,
            "in blocks": lambda: m.rsa_blockwise(x, y, part=8, **BARE).value,
            "numpy f32, scipy's ranks": lambda: numpy_spearman("f4"),
            "numpy f64, scipy's ranks": lambda: numpy_spearman("f8"),
            "scipy": lambda: float(spearmanr(pdist(x), pdist(y)).statistic),
        },
        "Recall@10": {
            "ours": lambda: m.knn_overlap(x, y, ks=(10,), **BARE)["recall@10"].value,
            "in blocks": lambda: m.knn_blockwise(x, y, ks=(10,), part=12, **BARE)["recall@10"].value,
            "sklearn": sklearn_recall,
            "faiss": faiss_recall,
        },
        "TwoNN": {
            "ours": lambda: m.two_nn(x, **none).value,
            "skdim": lambda: skdim.id.TwoNN().fit(x).dimension_,
        },
        "MLE, k = 20": {
            "ours": lambda: m.mle_dimension(x, **none).value,
            "skdim": lambda: skdim.id.MLE().fit(x, n_neighbors=20, comb="mean").dimension_,
        },
        "correlation dimension": {
            "ours": lambda: m.correlation_dimension(x, **none).value,
            "skdim": lambda: skdim.id.CorrInt().fit(x).dimension_,
        },
        "PCA 95 %": {
            "ours": lambda: m.pca_dimension(x, **none).value,
            "sklearn": lambda: float(
                1 + np.argmax(np.cumsum(PCA(svd_solver="full").fit(x).explained_variance_ratio_) >= 0.95)
            ),
        },
        "silhouette": {
            "ours": lambda: m.silhouette(x, labels, **BARE).value,
            "sklearn": lambda: float(silhouette_score(x, labels)),
        },
        "ridge probe, 5 folds, 10 penalties": {
            "ours": lambda: m.ridge_probe(x, y, permutations=0, shuffles=0, resamples=2)["r2"].value,
            "numpy f32": lambda: out_of_fold(numpy_fold),
            "numpy f64": lambda: out_of_fold(partial(numpy_fold, dtype="f8")),
            **({"sklearn RidgeCV": sklearn_probe} if slow else {}),
        },
        f"Procrustes ({same} columns)": {
            "ours": lambda: m.procrustes_distance(x[:, :same], y[:, :same], **BARE).detail["disparity"],
            "scipy": lambda: float(procrustes(x[:, :same], y[:, :same])[2]),
        },
    }
    return table


def q1(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return everything one extraction point needs, all options at their defaults."""
    a, b = m.Space(x), m.Space(y)
    steps: dict[str, Callable[[], Any]] = {"both spectra": lambda: (a.spectrum, b.spectrum)}
    for name in ("silhouette", "cluster_purity", "knn_accuracy", "intra_class_variance"):
        steps[name] = partial(getattr(m, name), a, labels)
    for name in ("pca_dimension", "mle_dimension", "two_nn"):
        steps[name] = partial(getattr(m, name), a)
    steps["ridge_probe, there"], steps["and back"] = lambda: m.ridge_probe(a, b), lambda: m.ridge_probe(b, a)
    for name in ("rsa_spearman", "knn_overlap", "linear_cka"):
        steps[name] = partial(getattr(m, name), a, b)
    return steps


def large(n: int, widths: tuple[int, int], block: int, folder: Path, cap: int) -> None:
    """Print CPU and wall seconds and the process's peak of the blockwise measures on Zarr arrays on disk.

    The arrays are opened as Dask arrays; private memory beyond `cap` bytes ends the process. One child process
    a measure, so that each has its own peak.
    """
    import subprocess
    import sys

    paths = [folder / f"{side}-{n}x{width}.zarr" for side, width in zip("xy", widths, strict=True)]
    for side, (path, width) in enumerate(zip(paths, widths, strict=True)):
        if not path.exists():
            _write(path, n, width, side)
    for name in LARGE:
        words = [
            sys.executable,
            "-m",
            __spec__.name,
            "--child",
            name,
            "--block",
            str(block),
            "--cap",
            str(cap),
        ]
        subprocess.run([*words, *map(str, paths)], check=True)


def _write(path: Path, n: int, width: int, side: int) -> None:
    import zarr

    staged = path.with_suffix(".partial")
    array = zarr.create_array(
        staged, overwrite=True, shape=(n, width), chunks=(1024, width), dtype="f4", compressors=None
    )
    turn = np.random.default_rng(side).standard_normal((12, width))
    for start in range(0, n, 1024):
        rows = min(1024, n - start)
        latent = np.random.default_rng([2, start]).standard_normal((rows, 12))  # what both sides share
        noise = np.random.default_rng([3 + side, start]).standard_normal((rows, width))
        array[start : start + rows] = (latent @ turn + 2 * noise).astype("f4")
    staged.rename(path)


LARGE: dict[str, Callable[..., Any]] = {
    "cka_blockwise": lambda x, y, block: m.cka_blockwise(x, y, block=block).value,
    "knn_blockwise": lambda x, y, block: m.knn_blockwise(x, y, ks=(10,), block=block)["recall@10"].value,
    "rsa_blockwise": lambda x, y, block: m.rsa_blockwise(x, y, block=block).value,
}


def child(name: str, paths: list[str], block: int, cap: int) -> None:
    """Measure one of LARGE on two Zarr arrays and print one line."""
    import resource

    import dask.array as da

    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    x, y = (da.from_zarr(path) for path in paths)
    cpu, wall, value = clock(lambda: LARGE[name](x, y, block), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    shapes = f"{x.shape} {y.shape}"
    print(
        f"{name:16s} {shapes}  cpu {cpu:8.1f} s  wall {wall:8.1f} s  peak {peak:6.0f} MiB  {value:.6f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--widths", type=int, nargs=2, default=(3584, 8192))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--slow", action="store_true", help="also scikit-learn's RidgeCV, about 100 s")
    parser.add_argument("--large", action="store_true", help="only the blockwise measures, with their memory")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench"), help="where --large keeps its arrays"
    )
    parser.add_argument("--cap", type=int, default=4 * 2**30, help="bytes of private memory --large may take")
    parser.add_argument("--child", choices=LARGE, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    widths = (args.widths[0], args.widths[1])
    if args.child:
        child(args.child, args.paths, args.block, args.cap)
        return
    for peer in ("torch", "faiss"):  # libraries that are loaded later keep their own threads
        with suppress(ImportError):
            import_module(peer)
    with threadpool_limits(args.threads):
        if args.large:
            large(args.samples, widths, args.block, args.folder, args.cap)
            return
        x, y, labels = planted(args.samples, widths)
        print(
            f"n={args.samples}, widths {widths}, float32, {args.threads} thread(s); ratio = ours / theirs\n"
        )
        for name, sides in against(x, y, labels, slow=args.slow).items():
            seconds, values = in_turn(sides, args.repeat)
            ours = seconds.pop("ours")
            print(f"{name:38s} ours {min(ours):7.3f} s = {values['ours']:.6f}")
            for peer, theirs in seconds.items():
                ratio = np.median(np.array(ours) / theirs)
                print(f"  {peer:36s}      {min(theirs):7.3f} s = {values[peer]:.6f}   ratio {ratio:.2f}")
        print("\none Q1 point with intervals and nulls:")
        total = 0.0
        for name, work in q1(x, y, labels).items():
            cpu, wall, _ = clock(work, 1)
            total += cpu
            print(f"  {name:24s} cpu {cpu:6.2f} s  wall {wall:6.2f} s")
        print(f"  {'all':24s} cpu {total:6.2f} s")


if __name__ == "__main__":
    main()
