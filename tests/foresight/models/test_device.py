"""Kernels and devices chosen by rule, known without a model; what a mode changes is put back."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from foresight import models
from foresight.models import device as rules
from foresight.models.device import deterministic, input_device, resolve_attention, resolve_device, to_cpu
from foresight.models.loading import WrongCheckpoint
from tests.conftest import frames_of


@pytest.fixture(autouse=True)
def _forget_what_is_installed() -> Any:
    rules._flash_attention.cache_clear()
    yield
    rules._flash_attention.cache_clear()


def test_kernels_and_devices_are_chosen_by_rule() -> None:
    assert resolve_attention("cpu", "bfloat16") == "sdpa"
    assert resolve_attention("cuda", "float32") == "sdpa"
    assert resolve_attention("cpu", "float32", kernels=("flash_attention_2", "eager")) == "eager"
    assert resolve_attention("cpu", "float32", asked="eager") == "eager"
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        resolve_device("tpu")


def test_flash_attention_is_taken_when_it_imports_and_the_gpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert resolve_attention("cuda", "bfloat16") == "flash_attention_2"
    assert resolve_attention("cuda", "bfloat16", kernels=("sdpa", "eager")) == "sdpa"
    assert resolve_attention("cuda", "float32") == "sdpa"
    rules._flash_attention.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert resolve_attention("cuda", "bfloat16") == "sdpa"


def test_a_flash_attention_that_is_installed_but_broken_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # importing it raises ImportError
    assert resolve_attention("cuda", "bfloat16") == "sdpa"
    with pytest.raises(
        ValueError, match="flash_attention_2 was asked for, but flash-attn cannot be imported"
    ):
        resolve_attention("cuda", "bfloat16", asked="flash_attention_2")


@pytest.mark.parametrize(
    ("where", "why"),
    [(("cpu", "bfloat16"), "it needs a GPU"), (("cuda", "float32"), "not in float32")],
)
def test_a_kernel_that_cannot_run_is_refused_when_asked_for(where: tuple[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        resolve_attention(*where, asked="flash_attention_2")


VLMS = sorted(c.name for c in models.cards().values() if c.tiny and c.role == "vlm")


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("card", VLMS)
def test_every_family_runs_the_kernels_it_declares(card: str, kernel: str) -> None:
    ref = models.parse_ref(f"{card}@random0")
    assert kernel in models.kernels(ref.card)
    loaded = models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention=kernel)
    point = ref.card.default_points[-1]
    values = loaded.extract([frames_of(*ref.card.size)], [point])[0][point].values
    assert torch.isfinite(torch.as_tensor(np.asarray(values))).all()


def test_a_class_that_takes_another_kernel_than_planned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration as Qwen

    plain = Qwen._from_config.__func__  # type: ignore[attr-defined]

    def other(cls: Any, config: Any, **given: Any) -> Any:
        return plain(cls, config, **given | {"attn_implementation": "eager"})

    monkeypatch.setattr(Qwen, "_from_config", classmethod(other))
    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    with pytest.raises(
        WrongCheckpoint, match="with sdpa attention, but its classes chose eager; ask for --attention"
    ):
        models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def modes() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


@pytest.mark.parametrize("tf32", [True, False])
def test_deterministic_mode_is_on_inside_and_put_back_after_an_error(tf32: bool) -> None:
    matmul, before, inside = torch.backends.cuda.matmul, modes(), []

    def fail() -> None:
        with deterministic("cpu"):
            inside.append(modes())
            raise RuntimeError("went wrong")

    try:
        matmul.allow_tf32 = torch.backends.cudnn.benchmark = tf32
        as_set = modes()
        with pytest.raises(RuntimeError, match="went wrong"):
            fail()
        assert inside == [(True, False, False, False, False, True)]
        assert modes() == as_set
    finally:
        matmul.allow_tf32, torch.backends.cudnn.benchmark = before[2], before[4]


def test_deterministic_mode_refuses_a_gpu_whose_workspace_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8"), deterministic("cuda"):
        raise AssertionError("not reached")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    with deterministic("cuda"):
        import os

        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_model_whose_weights_wait_elsewhere_gives_the_same_latents() -> None:
    from accelerate import cpu_offload

    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    family, asked = models.family(ref.card), ["patch", "vit.4", "merged", "llm.2", "llm.final"]
    whole, away = (family.load(ref, None, device="cpu", dtype="float32", attention="sdpa") for _ in range(2))
    cpu_offload(away.model, torch.device("cpu"))
    away.model.hf_device_map = {"": "cpu"}
    assert {p.device.type for p in away.model.parameters()} == {"meta"}
    assert input_device(away.model).type == "cpu"
    batch = [frames_of(64, 64), frames_of(96, 48, seed=1)]
    for mine, theirs in zip(whole.extract(batch, asked), away.extract(batch, asked), strict=True):
        for point in asked:
            assert torch.equal(mine[point].values, theirs[point].values)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_latents_spread_or_not_and_the_same_bits_when_deterministic() -> None:
    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    family, asked = models.family(ref.card), ["patch", "vit.4", "merged", "llm.2", "llm.final"]
    batch = [frames_of(64, 64), frames_of(96, 48, seed=1)]
    with deterministic("cuda"):
        loaded = {
            device: family.load(ref, None, device=device, dtype="float32", attention="sdpa")
            for device in ("cpu", "cuda", "auto")
        }
        found = {device: model.extract(batch, asked) for device, model in loaded.items()}
        again = loaded["cuda"].extract(batch, asked)
    for image in range(2):
        for point in asked:
            plain, here = found["cpu"][image][point], found["cuda"][image][point]
            assert here.values.device.type == "cpu"
            assert torch.equal(here.values, again[image][point].values)
            assert float((here.values - plain.values).norm() / plain.values.norm()) < 1e-4
            assert torch.equal(found["auto"][image][point].values, here.values)


@pytest.mark.gpu
def test_a_model_too_large_for_the_gpu_s_share_is_spread_over_memory_too() -> None:
    from accelerate import dispatch_model

    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    family, asked = models.family(ref.card), ["vit.2", "merged", "llm.2", "llm.final"]
    whole, parted = (
        family.load(ref, None, device=device, dtype="float32", attention="sdpa") for device in ("cuda", "cpu")
    )
    places = {"model.visual": 0, "model.language_model": "cpu", "lm_head": "cpu"}
    dispatch_model(parted.model, device_map=places, main_device=0)
    batch = [frames_of(64, 64), frames_of(96, 48, seed=1)]
    for mine, theirs in zip(whole.extract(batch, asked), parted.extract(batch, asked), strict=True):
        for point in asked:
            assert theirs[point].values.device.type == "cpu"
            torch.testing.assert_close(theirs[point].values, mine[point].values, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_what_comes_back_from_a_gpu_lies_in_pinned_memory() -> None:
    values = torch.arange(1000, dtype=torch.bfloat16, device="cuda")
    back = to_cpu(values)
    assert back.is_pinned()
    assert torch.equal(back, values.cpu())
