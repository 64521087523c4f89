"""Train the tiny models on rendered shapes, and save them as ordinary checkpoint folders.

A tiny vision-language model learns to caption ('cyan triangle middle left'), a tiny autoencoder to rebuild.
Both see pictures whose seed is far from any that an experiment uses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight import data, models
from foresight.models.card import Card, ModelRef
from foresight.nouns import Frames, Sample
from foresight.training.loop import Progress, fit

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Goes up when training gives other weights for the same card and seed on the same machine."""

TRAINING_DATA_SEED = 7_000_000_000
"""Seed of the pictures the zoo trains on; experiments count their seeds from 0."""

HELD_OUT = 256
"""Pictures kept from training to score the model with."""

IGNORED = -100


def train(
    ref: ModelRef, folder: Path, *, scratch: Path | None = None, progress: Progress | None = None
) -> dict[str, float]:
    """Train the tiny model `ref` names, save it in `folder` and return its held-out scores.

    With `scratch` a killed training goes on where it was. Same card and seed on the same machine and
    libraries give the same weights.
    """
    if ref.kind != "seed":
        raise ValueError(f"the zoo trains tiny cards by seed, but got {ref}")
    return _TASKS[ref.card.training["task"]](ref, folder, scratch, progress)


def recipe(card: Card, seed: int) -> dict[str, Any]:
    """Return everything the trained weights depend on, as plain values."""
    return {
        "card": card.name,
        "config": dict(card.config),
        "training": dict(card.training) | {"seed": seed, "data_seed": TRAINING_DATA_SEED, "version": VERSION},
        "size": list(card.size),
    }


def _pictures(card: Card) -> tuple[data.DataSource, list[Sample], list[Frames]]:
    source = data.open(
        card.training["data"],
        samples=card.training["images"] + HELD_OUT,
        seed=TRAINING_DATA_SEED,
        size=card.size,
    )
    samples = list(source.manifest)
    return source, samples, [source.frames(s, data.Sampling(frames=1)) for s in samples]


def _drawn(ref: ModelRef) -> Any:
    """Return the random twin of `ref`, named by the same seed: training starts from the weights it is compared with."""
    twin = ModelRef(card=ref.card, kind="random", value=ref.value)
    return models.family(ref.card).load(twin, None, device="cpu", dtype="float32", attention="sdpa")


def _autoencoder(
    ref: ModelRef, folder: Path, scratch: Path | None, progress: Progress | None
) -> dict[str, float]:
    import torch

    settings = ref.card.training
    source, samples, frames = _pictures(ref.card)
    model = _drawn(ref)
    model.vae.requires_grad_(True)
    pixels = model.prepare(frames)
    masks = torch.from_numpy(np.stack([source.mask(s) for s in samples]) > 0)[:, None, None]  # type: ignore[attr-defined]
    weights = 1 + settings["foreground_weight"] * masks
    held, kept = pixels[-HELD_OUT:], len(pixels) - HELD_OUT

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(kept, (settings["batch"],), generator=generator)
        posterior = model.vae.encode(pixels[rows]).latent_dist
        rebuilt = model.vae.decode(posterior.sample(generator=generator)).sample
        error = ((rebuilt - pixels[rows]).square() * weights[rows]).mean()
        return error + settings["kl_weight"] * posterior.kl().mean() / posterior.mean[0].numel()

    _fit(model.vae, loss, ref, scratch, progress)
    with torch.no_grad():
        z = torch.cat([model.vae.encode(part).latent_dist.mode() for part in pixels[:kept].split(100)])
        model.vae.latents_mean.copy_(z.mean(dim=(0, 2, 3, 4)))
        model.vae.latents_std.copy_(z.std(dim=(0, 2, 3, 4)))
        rebuilt = torch.cat(
            [model.vae.decode(model.vae.encode(part).latent_dist.mode()).sample for part in held.split(64)]
        )
    model.save(folder)
    mean = pixels[:kept].mean(dim=0, keepdim=True)
    return {"psnr_db": _psnr(rebuilt.clamp(-1, 1), held), "psnr_db_of_the_mean_image": _psnr(mean, held)}


def _fit(
    model: torch.nn.Module,
    loss: Callable[[torch.Generator], torch.Tensor],
    ref: ModelRef,
    scratch: Path | None,
    progress: Progress | None,
) -> None:
    fit(
        model,
        loss,
        steps=ref.card.training["steps"],
        learning_rate=ref.card.training["learning_rate"],
        seed=int(ref.value),
        scratch=scratch,
        progress=progress,
    )


def _psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return 10 log10(1 / mean squared error) in dB, for images in [-1, 1]."""
    return float(-10 * ((a - b) / 2).square().mean().log10())


def _captioner(
    ref: ModelRef, folder: Path, scratch: Path | None, progress: Progress | None
) -> dict[str, float]:
    import torch

    settings = ref.card.training
    _, samples, frames = _pictures(ref.card)
    vlm = _drawn(ref)
    inputs = vlm.prepare(frames)
    captions = [str(s.annotations["caption"]) for s in samples]
    whole, labels = _with_captions(vlm, inputs, captions)
    kept = len(samples) - HELD_OUT

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(kept, (settings["batch"],), generator=generator)
        return vlm.model(**vlm.rows(whole, rows), labels=labels[rows], use_cache=False).loss

    _fit(vlm.model, loss, ref, scratch, progress)
    vlm.save(folder)
    return _caption_scores(vlm, inputs, samples, kept)


def _with_captions(
    vlm: Any, inputs: dict[str, Any], captions: list[str]
) -> tuple[dict[str, Any], torch.Tensor]:
    """Return `inputs` with each caption and an end mark behind the image, and the labels for them."""
    import torch

    end = vlm.tokenizer.eos_token_id
    coded = [[*vlm.tokenizer(c, add_special_tokens=False)["input_ids"], end] for c in captions]
    longest = max(map(len, coded))
    texts = torch.tensor([c + [vlm.tokenizer.pad_token_id] * (longest - len(c)) for c in coded])
    present = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for c in coded])
    labels = torch.cat(
        [torch.full_like(inputs["input_ids"], IGNORED), texts.masked_fill(present == 0, IGNORED)], 1
    )
    whole = dict(inputs) | {
        "input_ids": torch.cat([inputs["input_ids"], texts], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], present], 1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(present).int()], 1),
    }
    return whole, labels


def _caption_scores(vlm: Any, inputs: dict[str, Any], samples: list[Sample], kept: int) -> dict[str, float]:
    """Return how often the held-out captions name colour, shape, row and column right, and chance for each."""
    import torch

    rows = torch.arange(kept, len(samples))
    with torch.no_grad():
        written = vlm.model.generate(**vlm.rows(inputs, rows), max_new_tokens=40, do_sample=False)
    texts = vlm.tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    words = [(t.split() + [""] * 4)[:4] for t in texts]
    scores: dict[str, float] = {}
    for place, key in enumerate(("colour", "shape", "row", "column")):
        truth = [str(s.annotations[key]) for s in samples[kept:]]
        scores[key] = float(np.mean([w[place] == t for w, t in zip(words, truth, strict=True)]))
        scores[f"{key}_by_chance"] = max(truth.count(t) for t in set(truth)) / len(truth)
    return scores


_TASKS: dict[str, Callable[[ModelRef, Path, Path | None, Progress | None], dict[str, float]]] = {
    "autoencode": _autoencoder,
    "captions": _captioner,
}
