"""Where a model runs and with which kernels: the choices made when the user says 'auto'."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
DTYPES = ("float32", "float16", "bfloat16")


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


def resolve_attention(device: str, dtype: str) -> str:
    """Return the attention kernel: flash_attention_2 when it is installed and can run, else sdpa.

    FlashAttention needs a GPU and half precision. The choice is part of a latent's identity: in bfloat16 the
    kernels differ by about 2e-2 relative.
    """
    half = dtype in ("float16", "bfloat16")
    if device == "cuda" and half and importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    return "sdpa"


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
