"""Writes the golden store: `python -m tests.store.golden_store FOLDER`, once for each format version."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np

import store
from tests.store.helpers import fill, manifest, recipe, row, sample

POINTS = {"vit.4": np.float32, "vit.8": np.float16, "llm.2": ml_dtypes.bfloat16}
TOKENS = [5, 12, 3]


def write(folder: str) -> None:
    """Write one of everything: three dtypes, fixed and ragged shards, a dropped row, results, blobs, a pin."""
    catalog = store.open(folder, create=True)
    whole = catalog.put_manifest(manifest(range(5)))
    for point, dtype in POINTS.items():
        fill(catalog, range(5), of=recipe(point=point), rows_per_shard=3, dtype=dtype)
    with catalog.writer(recipe(point="ragged")) as writer:
        for i, tokens in enumerate(TOKENS):
            writer.put(**row(i, tokens=tokens))
    index = catalog._contents.index(recipe().id)
    table, position = index.locate([sample(1)])[0]
    index.drop([(table.shard, position)], "to show what a drop looks like")
    fill(catalog, [1])
    latents = catalog.latents(recipe().id, whole).content_id
    assert latents is not None
    blob = catalog.put_blob(b'{"cka": 0.5}', "application/json")
    tree = catalog.put_tree({"deep/w.bin": b"weights"})
    made = store.Recipe(operation="metric.cka", version=1, inputs={"latents": latents})
    catalog.record(
        made, outputs={"json": blob, "tree": tree}, values={"cka": 0.5}, provenance={"host": "cpu"}
    )
    catalog.pin("golden", whole)


if __name__ == "__main__":
    write(sys.argv[1])
