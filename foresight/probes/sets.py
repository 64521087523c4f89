"""Set probe: a few queries look at all tokens and each gives one object or none, as in DETR.

Carion et al. (2020), arXiv:2005.12872: Hungarian matching of predictions to annotated objects, so that no
overlap has to be removed afterwards. Queries start from reference places as in Conditional DETR, which reaches
in hundreds of steps what free queries need many epochs for: Meng et al. (2021), arXiv:2108.06152.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.probes.boxes import as_tensor, giou, places
from foresight.probes.coco_map import Objects
from foresight.probes.grids import TokenGrids
from foresight.training.loop import fit

if TYPE_CHECKING:
    import torch

STEPS, LEARNING_RATE, BATCH = 300, 4e-3, 48
SIDE = 4
"""Queries start from SIDE x SIDE places."""
FEATURES, HEADS, LAYERS = 64, 4, 2
COST_CLASS, COST_CORNER, COST_GIOU = 1.0, 5.0, 2.0
NO_OBJECT = 0.2
"""Weight of 'no object' in the class loss: most queries have none."""


def set_probe(
    train: TokenGrids,
    truth: Sequence[Objects],
    test: TokenGrids,
    *,
    classes: int,
    steps: int = STEPS,
    seed: int = 0,
) -> list[Objects]:
    """Train on `train` with its annotated objects and return the objects found in every sample of `test`.

    Every query gives one object per sample: its most likely class with that class's probability as score. Crowds
    are not trained on. Grids of one time step.
    """
    import torch

    torch.manual_seed(seed)
    head = _detector(train.values.shape[-1], classes, train.rows, train.cols)
    values = as_tensor(train)
    wanted = [_training_part(o) for o in truth]

    def loss(generator: torch.Generator) -> torch.Tensor:
        picked = torch.randint(len(values), (min(BATCH, len(values)),), generator=generator).tolist()
        return set_loss(head(values[picked].float()), [wanted[i] for i in picked])

    fit(head, loss, steps=steps, learning_rate=LEARNING_RATE, seed=seed)
    found: list[Objects] = []
    with torch.no_grad():
        for part in as_tensor(test).split(256):
            logits, boxes = head(part.float())[-1]
            likely, kind = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
            corners = boxes.clamp(0, 1).numpy().astype(np.float64)
            found += [
                Objects(boxes=b, classes=k, scores=s)
                for b, k, s in zip(corners, kind.numpy(), likely.numpy().astype(np.float64), strict=True)
            ]
    return found


def constant_set(train: Sequence[Objects], *, images: int) -> list[Objects]:
    """Return the same guess for every image: each class's mean box, scored by how often the class occurs."""
    boxes = np.concatenate([_training_part(o)[0].numpy() for o in train])
    classes = np.concatenate([_training_part(o)[1].numpy() for o in train])
    kinds = np.unique(classes)
    guess = Objects(
        boxes=np.stack([boxes[classes == k].mean(axis=0) for k in kinds]).astype(np.float64),
        classes=kinds,
        scores=np.array([(classes == k).mean() for k in kinds]),
    )
    return [guess] * images


def match(
    logits: torch.Tensor, boxes: torch.Tensor, truth: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (query, object) indices of the cheapest one-to-one assignment of every image."""
    import torch
    from scipy.optimize import linear_sum_assignment

    images, queries = boxes.shape[:2]
    most = max((len(wanted) for wanted, _ in truth), default=0)
    wanted, kinds = torch.zeros(images, most, 4), torch.zeros(images, most, dtype=torch.int64)
    for i, (each, classes) in enumerate(truth):
        wanted[i, : len(each)], kinds[i, : len(each)] = each, classes
    with torch.no_grad():
        mine = boxes[:, :, None].expand(images, queries, most, 4)
        theirs = wanted[:, None].expand(images, queries, most, 4)
        likely = logits.softmax(dim=-1).gather(2, kinds[:, None].expand(images, queries, most))
        far = (mine - theirs).abs().mean(dim=-1)
        cost = (COST_CORNER * far - COST_CLASS * likely - COST_GIOU * giou(mine, theirs)).numpy()
    return [linear_sum_assignment(c[:, : len(each)]) for c, (each, _) in zip(cost, truth, strict=True)]


def set_loss(
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]], truth: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Return the loss of (logits [image query class], boxes [image query 4]) of every layer, summed."""
    import torch

    total = torch.zeros(())
    wanted, classes = (torch.cat(parts) for parts in zip(*truth, strict=True))
    starts = np.cumsum([0, *(len(each) for each, _ in truth)])
    for logits, boxes in layers:
        nothing = logits.shape[-1] - 1
        kinds = torch.full(logits.shape[:2], nothing)
        found = match(logits, boxes, truth)
        image = np.concatenate([np.full(len(query), i) for i, (query, _) in enumerate(found)])
        query = np.concatenate([query for query, _ in found])
        which = np.concatenate([starts[i] + objects for i, (_, objects) in enumerate(found)])
        kinds[image, query] = classes[which]
        weight = torch.ones(nothing + 1)
        weight[nothing] = NO_OBJECT
        total = total + torch.nn.functional.cross_entropy(logits.flatten(0, 1), kinds.flatten(), weight)
        if len(which):
            a, b = boxes[image, query], wanted[which]
            total = total + COST_CORNER * (a - b).abs().mean() + COST_GIOU * (1 - giou(a, b)).mean()
    return total


def _training_part(objects: Objects) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    keep = np.ones(len(objects), bool) if objects.crowd is None else ~np.asarray(objects.crowd, bool)
    boxes = np.asarray(objects.boxes, np.float32).reshape(-1, 4)[keep]
    return torch.from_numpy(boxes), torch.from_numpy(np.asarray(objects.classes, np.int64)[keep])


def _waves(places_xy: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of places in [0, 1]: [… 2] becomes [… FEATURES]."""
    import torch

    count = FEATURES // 4
    speeds = torch.pi * 2.0 ** torch.linspace(0, 4, count)
    turned = places_xy[..., None] * speeds
    return torch.cat([turned.sin(), turned.cos()], dim=-1).flatten(-2)


def _detector(width: int, classes: int, rows: np.ndarray, cols: np.ndarray) -> Any:
    import torch
    from torch import nn

    where = torch.from_numpy(places(rows, cols))
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    references = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.among = nn.MultiheadAttention(FEATURES, HEADS, batch_first=True)
            self.at = nn.MultiheadAttention(FEATURES, HEADS, batch_first=True)
            self.think = nn.Sequential(
                nn.Linear(FEATURES, 2 * FEATURES), nn.GELU(), nn.Linear(2 * FEATURES, FEATURES)
            )
            self.norms = nn.ModuleList(nn.LayerNorm(FEATURES) for _ in range(3))

        def forward(
            self, queries: torch.Tensor, here: torch.Tensor, tokens: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            spread = _waves(where)
            asked = self.norms[0](queries + self.among(queries + here, queries + here, queries)[0])
            seen, looked = self.at(asked + here, tokens + spread, tokens + spread)
            asked = self.norms[1](asked + seen)
            return self.norms[2](asked + self.think(asked)), looked

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.take = nn.Sequential(nn.Linear(width, FEATURES), nn.GELU(), nn.Linear(FEATURES, FEATURES))
            self.queries = nn.Parameter(torch.randn(len(references), FEATURES) * 0.02)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.kind = nn.Linear(FEATURES, classes + 1)
            self.box = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.GELU(), nn.Linear(FEATURES, 4))

        def forward(self, tokens: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            memory = self.take(tokens)
            asked = self.queries.expand(len(tokens), -1, -1)
            here = references.expand(len(tokens), -1, -1)
            given = []
            for layer in self.layers:
                asked, looked = layer(asked, _waves(here), memory)
                place, size = self.box(asked).split(2, dim=-1)
                # where the query looked is where its object is, but for a small offset
                here = looked @ where + 0.2 * torch.tanh(place)
                half = torch.sigmoid(size - 1.5) / 2
                given.append((self.kind(asked), torch.cat([here - half, here + half], dim=-1)))
                here = here.detach()
            return given

    return Detector()
