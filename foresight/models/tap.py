"""Record what chosen modules return during one forward pass, and stop as soon as all have been seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class AllSeen(Exception):
    """Raised inside the forward pass once every tapped module has returned; never leaves `record`."""


def record(model: nn.Module, paths: Mapping[str, str], forward: Callable[[], Any]) -> dict[str, Tensor]:
    """Run `forward` and return the output of each module in `paths` under the name it was asked by.

    `paths` maps names to module paths. The pass ends right after the last of them has returned, so layers
    beyond the deepest one cost nothing. A module that returns a tuple gives its first entry. The layers of a model
    that is spread over several devices give their outputs on the CPU. Every hook is removed again, also when
    `forward` fails.

    Raises `KeyError` for a path the model does not have, `RuntimeError` for a module that is never reached or
    runs twice, and `TypeError` for one that returns no tensor: a point is recorded whole or not at all.
    """
    seen: dict[str, Tensor] = {}
    with _hooks(model, paths, seen), suppress(AllSeen):
        forward()
    if missing := [name for name in paths if name not in seen]:
        raise RuntimeError(
            f"the forward pass never reached {', '.join(f'{n} ({paths[n]})' for n in missing)}; "
            "the module is not part of this model's path for these inputs"
        )
    return seen


@contextmanager
def _hooks(model: nn.Module, paths: Mapping[str, str], seen: dict[str, Tensor]) -> Iterator[None]:
    modules = dict(model.named_modules())
    if unknown := [p for p in paths.values() if p not in modules]:
        raise KeyError(f"{type(model).__name__} has no module {', '.join(unknown)}")
    home = "cpu" if getattr(model, "hf_device_map", None) else None
    handles = []
    try:
        for name, path in paths.items():
            handles.append(modules[path].register_forward_hook(_recorder(name, path, seen, len(paths), home)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(
    name: str, path: str, seen: dict[str, Tensor], wanted: int, home: str | None
) -> Callable[..., None]:
    import torch

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"a tapped module returns a tensor or a tuple that starts with one, but {path} returned "
                f"{type(value).__name__}; tap a module inside it"
            )
        if name in seen:
            raise RuntimeError(f"a tapped module runs once in a forward pass, but {path} ran twice")
        seen[name] = value.detach().to(home) if home else value.detach()
        if len(seen) == wanted:
            raise AllSeen

    return hook
