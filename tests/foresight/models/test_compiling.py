"""Compiled blocks: every point is still seen, a pass still stops early, and a missing compiler is told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from foresight import models
from foresight.models.compiling import blocks, check_compiler, compile_blocks
from tests.conftest import frames_of

BATCH = [frames_of(64, 64), frames_of(45, 83, seed=1)]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def load(card: str) -> Any:
    ref = models.parse_ref(f"{card}@random0")
    return models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def paths(card: str) -> tuple[str, ...]:
    return blocks(models.points(models.get(card)))


def test_blocks_are_the_layers_of_towers_and_language_models_and_autoencoders_have_none() -> None:
    assert paths("dinov2-tiny") == tuple(f"encoder.layer.{n}" for n in range(4))
    assert [p.rpartition(".")[0] for p in paths("qwen2.5-vl-tiny")] == [
        *["model.visual.blocks"] * 4,
        *["model.language_model.layers"] * 4,
    ]
    assert paths("ltx-video-tiny") == ()


@pytest.mark.parametrize("card", ["qwen2.5-vl-tiny", "cogvlm2-tiny", "dinov2-tiny"])
def test_every_point_of_a_compiled_model_is_seen_and_has_its_values(card: str) -> None:
    """The graph is captured and run as it is, without new kernels, so that bits can be compared."""
    plain, compiled = load(card), load(card)
    getattr(compiled, "ensure", lambda _: None)("model.norm")
    compile_blocks(compiled.model, paths(card), backend="eager")
    for asked in (["all"], ["vit.2"]):
        for mine, theirs in zip(compiled.extract(BATCH, asked), plain.extract(BATCH, asked), strict=True):
            assert list(mine) == list(theirs)
            for point, tokens in theirs.items():
                assert torch.equal(mine[point].values, tokens.values), point


def test_a_pass_over_compiled_blocks_ends_after_the_deepest_point() -> None:
    vlm, ran = load("qwen2.5-vl-tiny"), []
    compile_blocks(vlm.model, paths("qwen2.5-vl-tiny"), backend="eager")
    for number, block in enumerate(vlm.model.model.visual.blocks, start=1):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    vlm.extract(BATCH, ["vit.2", "vit.1"])
    assert ran == [1, 2]


def test_blocks_that_were_not_loaded_are_left_out() -> None:
    vlm = load("qwen2.5-vl-tiny")
    del vlm.model.model.language_model.layers[2:]
    compile_blocks(vlm.model, paths("qwen2.5-vl-tiny"), backend="eager")
    changed = [name for name, module in vlm.model.named_modules() if "forward" in vars(module)]
    assert changed == [*paths("qwen2.5-vl-tiny")[:6]]


def test_a_missing_compiler_is_told_in_a_sentence() -> None:
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": ("no-compiler-of-this-name",), "force_disable_caches": True}),
        pytest.raises(
            ValueError, match=r"--compile takes .* on cpu \(a C\+\+ compiler\), but a trial failed: .*leave"
        ),
    ):
        check_compiler("cpu")


@pytest.mark.slow
def test_compiled_kernels_give_the_same_values_to_rounding_and_not_to_the_bit() -> None:
    check_compiler("cpu")
    plain, compiled = load("dinov2-tiny"), load("dinov2-tiny")
    compile_blocks(compiled.model, paths("dinov2-tiny"))
    for mine, theirs in zip(compiled.extract(BATCH, ["all"]), plain.extract(BATCH, ["all"]), strict=True):
        assert torch.equal(mine["patch"].values, theirs["patch"].values)
        off = (mine["vit.4"].values - theirs["vit.4"].values).norm() / theirs["vit.4"].values.norm()
        assert 0 < off < 1e-5  # 6e-7 was the most seen in float32
