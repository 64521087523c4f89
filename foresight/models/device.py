"""Where a model runs and with which kernels: the choices made when the user says 'auto'."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

DTYPES = ("float32", "float16", "bfloat16")
KERNELS = ("flash_attention_2", "sdpa", "eager")
"""Attention kernels, the fastest first. In bfloat16 their values differ by about 2e-2 relative."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def resolve_device(asked: str) -> str:
    """Return 'cpu' or 'cuda' for `asked` ('auto', 'cpu', 'cuda').

    'auto' looks for a GPU device file before it asks torch, so that planning on a machine without a GPU
    imports nothing heavy. Raises `ValueError` when 'cuda' is asked for and torch sees no GPU.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise ValueError(f"the device is auto, cpu or cuda, but got {asked!r}")
    if asked == "cpu" or (asked == "auto" and not _has_gpu_file()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise ValueError("device cuda was asked for, but torch sees no GPU here; ask for --device cpu")
    return "cpu"


def resolve_attention(
    device: str, dtype: str, *, kernels: Sequence[str] = KERNELS, asked: str = "auto"
) -> str:
    """Return the attention kernel: `asked`, or for 'auto' the first of `kernels` that can run here.

    `kernels` are those the model's classes have. FlashAttention needs a GPU of compute capability 8, half
    precision, and a package that imports; the choice is made without a model, so that a plan knows it.
    Raises `ValueError` for a kernel that cannot run.
    """
    if asked == "auto":
        return next(k for k in kernels if not _cannot_run(k, device, dtype))
    if asked not in kernels:
        raise ValueError(f"this model's attention is one of {', '.join(kernels)}, but got {asked!r}")
    if why := _cannot_run(asked, device, dtype):
        raise ValueError(f"{asked} was asked for, but {why}; ask for --attention auto")
    return asked


def _cannot_run(kernel: str, device: str, dtype: str) -> str:
    """Say why a kernel cannot run here; '' when it can."""
    if kernel != "flash_attention_2":
        return ""
    if device != "cuda":
        return "it needs a GPU"
    if dtype == "float32":
        return "it computes in float16 and bfloat16, not in float32"
    return _flash_attention()


@cache
def _flash_attention() -> str:
    """Say why flash-attn cannot be used on this machine. Installed is not enough: it is built for one torch."""
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:
        return f"flash-attn cannot be imported ({error})"
    import torch

    major, minor = torch.cuda.get_device_capability()
    return "" if major >= 8 else f"this GPU has compute capability {major}.{minor}, and it needs 8"


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Let the same inputs in the same batches give the same bits, at some cost in time.

    Deterministic algorithms only (torch raises for an operation that has none), no TF32, no trying out of
    convolution kernels. What was set before comes back, except cuBLAS's workspace on a GPU: it is read once a process.

    Raises `ValueError` when cuBLAS is running already with a workspace of its own.
    """
    import torch

    if device == "cuda" and os.environ.get(_WORKSPACE) not in (":4096:8", ":16:8"):
        if torch.cuda.is_initialized():
            raise ValueError(
                f"deterministic mode sets {_WORKSPACE} before CUDA starts, but it is running already; "
                f"start the process with {_WORKSPACE}=:4096:8"
            )
        os.environ[_WORKSPACE] = ":4096:8"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        matmul.allow_tf32,
        cudnn.allow_tf32,
        cudnn.benchmark,
        cudnn.deterministic,
    )
    torch.use_deterministic_algorithms(True)
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before[2:]


def input_device(model: Any) -> Any:
    """Return the device a model takes its inputs on; `model.device` is no answer for one that is spread.

    There weights may lie on several devices, and those that wait in memory or on disk are on none ('meta').
    """
    import torch

    spread = {str(d) for d in getattr(model, "hf_device_map", {}).values()} - {"cpu", "disk"}
    if spread:
        first = min(spread)
        return torch.device(f"cuda:{first}" if first.isdigit() else first)
    device = next(model.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device


def to_device(values: Any, device: Any) -> Any:
    """Return a CPU tensor on `device`; to a GPU through pinned memory, so that the copy does not wait."""
    import torch

    if torch.device(device).type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def to_cpu(values: Any) -> Any:
    """Return a tensor on the CPU; from a GPU through pinned memory, several times faster than without."""
    import torch

    if values.device.type != "cuda":
        return values.cpu()
    with torch.cuda.device(values.device):
        kept = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        kept.copy_(values, non_blocking=True)
        torch.cuda.current_stream().synchronize()
    return kept


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the model libraries' own progress bars and load reports off the terminal while loading and saving."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = {log: log.is_progress_bar_enabled() for log in (diffusers_logging, transformers_logging)}
    levels = {log: log.get_verbosity() for log in shown}
    for log in shown:
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, was in shown.items():
            log.set_verbosity(levels[log])
            if was:
                log.enable_progress_bar()


def check_dtype(dtype: str) -> str:
    """Return `dtype` when it is one we compute in, else raise `ValueError`."""
    if dtype not in DTYPES:
        raise ValueError(f"the compute type is one of {', '.join(DTYPES)}, but got {dtype!r}")
    return dtype


def _has_gpu_file() -> bool:
    return any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
