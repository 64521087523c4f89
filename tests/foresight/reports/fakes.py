"""Small but complete inputs of a Q1 report, with hostile names and undefined numbers among them."""

import io
from functools import cache

import numpy as np
from PIL import Image

from foresight.decisions import q1_decision
from foresight.metrics import Space
from foresight.reports import Q1Inputs
from foresight.studies.decoder import decoder_latent
from foresight.studies.rows import RANDOM, TRAINED, Latent, Spaces

POINTS = ("patch", "vit.2", "llm.2")
HOSTILE = "<script>alert('x')</script> & $x$ \\frac.png"


def thumbnail(seed: int, size: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def measured(value, half=0.05, **more):
    ends = {"low": None, "high": None} if value is None else {"low": value - half, "high": value + half}
    base = {
        "value": value,
        **ends,
        "null": 0.0,
        "p": 0.001,
        "n": 40,
        "n_effective": 20,
        "controls": {},
        "why": "",
    }
    return base | more


def measurements():
    rows = []
    for i, point in enumerate(POINTS):
        for variant, f in (("trained", 1.0), ("random weights", 0.5)):

            def add(row, name, estimate, point=point, variant=variant):
                rows.append({"row": row, "name": name, "point": point, "variant": variant, **estimate})

            add("Q1.1", "k-NN accuracy", measured(f * (0.5 + 0.1 * i), null=0.25))
            add("Q1.1", "intra-class variance share", measured(0.9 - 0.1 * i, null=1.0))
            spectrum = (np.arange(8, 0, -1) / 36).tolist()
            add("Q1.3", "TwoNN", measured(6.0 + i, 0.5, null=None, p=None, detail={"spectrum": spectrum}))
            controls = {"train mean": -0.01, "shuffled pairs": -0.1, "random projection": 0.1}
            add("Q1.4", "ridge R² VLM→decoder", measured(f * (0.3 + 0.1 * i), controls=controls))
            add("Q1.5", "Spearman ρ of distances", measured(f * 0.5))
            add("Q1.6", "Recall@10", measured(f * 0.4, null=10 / 39))
            add("Q1.7", "linear CKA (debiased)", measured(f * 0.5, controls={"biased": 0.8}))
    rows.append(
        {"row": "Q1.3", "name": "TwoNN", "point": "latent", "variant": "trained", **measured(12.0, 1.0)}
    )
    rows += decoder_rows()
    undefined = measured(None, why="every sample is the same", null=None, p=None)
    rows.append({"row": "Q1.1", "name": "silhouette", "point": "patch", "variant": "trained", **undefined})
    return rows


@cache
def decoder_rows():
    """Q1.2 as it is measured, of a latent of noise and of a smooth copy."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(40, 6, 6, 3)).astype(np.float32)
    smooth = np.cumsum(np.cumsum(noise, axis=1), axis=2)
    trained, copy = (
        Latent(model="tiny-vae", point="latent", variant=v, space=Space(x.reshape(40, -1)), cells=(1, 6, 6))
        for v, x in ((TRAINED, smooth), (RANDOM, noise))
    )
    labels = tuple("ab"[i % 2] for i in range(40))
    return decoder_latent(Spaces(vlm=(), decoder=trained, decoder_copy=copy, labels=labels))


def q1_inputs(**change) -> Q1Inputs:
    n = 40
    keys = [HOSTILE, *(f"clips/{i:03d}.webm" for i in range(1, n))]
    rng = np.random.default_rng(0)
    decision = q1_decision(
        r2=measured(0.5), spearman=measured(0.7), recall=measured(0.4, null=10 / 39), cka=measured(0.5),
        composite=measured(0.52), dimension_vlm=measured(6, 0.5), dimension_decoder=measured(12, 1),
        best_point="llm.2", vlm_width=64, decoder_channels=8, decoder_cells=16,
    )  # fmt: skip
    parts = {
        "measurements": measurements(),
        "decision": decision.to_json(),
        "data": {
            "source": "folder",
            "n": n,
            "classes": ["a", "b"],
            "skipped": [{"key": HOSTILE, "why": "truncated <b>JPEG</b>"}],
            "ignored": 2,
        },
        "models": [
            {"role": "vlm", "card": "tiny-vlm", "fingerprint": "ab" * 32, "points": POINTS, "params": 1234},
            {"role": "decoder", "card": "tiny-vae", "fingerprint": "cd" * 32, "points": ["latent"]},
        ],
        "keys": keys,
        "labels": ["a" if i % 2 else "<img src=x onerror=alert(1)>" for i in range(n)],
        "projections": {p: {"xy": rng.normal(size=(n, 2)), "explained": [0.4, 0.2]} for p in POINTS},
        "layouts": {
            method: {
                p: {"xy": rng.normal(size=(n, 2)), "explained": [], "trustworthiness": 0.8} for p in POINTS
            }
            for method in ("t-SNE", "UMAP")
        },
        "outliers": [{"first": keys[0], "second": keys[3], "vlm": 0.02, "decoder": 0.97}],
        "thumbnails": {k: thumbnail(i) for i, k in enumerate(keys)},
        "distances": {"vlm": rng.random(300), "decoder": rng.random(300), "point": "llm.2"},
        "neighbours": [{"query": keys[0], "vlm": keys[1:7], "decoder": keys[4:10]}],
        "reconstructions": [{"input": thumbnail(1), "output": thumbnail(2), "psnr": 21.5}],
        "stages": [{"name": "extract", "state": "cached", "key": "ef" * 32, "why": ""}],
        "recipes": [
            {
                "id": "12" * 32,
                "operation": "cka",
                "version": 2,
                "settings": {"k": 5},
                "inputs": {"x": "34" * 32},
            }
        ],
        "versions": {"python": "3.11", "numpy": "2.4"},
    }
    return Q1Inputs(**(parts | change))
