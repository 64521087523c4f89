"""CogVLM2: a post-norm vision tower, a 2 x 2 merger, and a decoder with two experts in one sequence.

The names of parameters and buffers are the keys of the published safetensors; nothing is renamed when loading.
`vision` and `text` are the numbers of a checkpoint's config.json, by the names that file gives them.

The decoder keeps text and image in one causal sequence. Inside every layer each position goes through one of
two sets of weights, the language expert's or the vision expert's; attention itself sees all positions alike.

Architecture: Wang et al. (2023), arXiv:2311.03079; Hong et al. (2024), arXiv:2408.16500. The vision tower is
EVA2-CLIP-E: Sun et al. (2023), arXiv:2303.15389.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ROPE_BASE = 500_000.0
"""Base of the rotary frequencies; the published code has it in code, not in config.json."""

KERNELS = ("sdpa", "eager", "flash_attention_2")
"""Attention kernels these modules can run with; the last is the FlashAttention that torch is built with."""


def vision_expert(vision: Bool[Tensor, "sample token"]) -> Bool[Tensor, "sample token"]:
    """Return which positions go through the vision expert: image positions, except the last of each image.

    The end-of-image position is an image position whose successor is not: the language expert takes it.
    """
    follows = F.pad(vision[:, 1:], (0, 1), value=False)
    return vision & follows


def rope_positions(vision: Bool[Tensor, "sample token"]) -> Int[Tensor, "sample token"]:
    """Return the rotary position of every token, from 0.

    All patches of an image share one position; begin- and end-of-image have one of their own, like text:
    text, begin, patch, patch, patch, end, text are at 0, 1, 2, 2, 2, 3, 4.
    """
    before = F.pad(vision[:, :-1], (1, 0), value=False)
    patch = before & vision_expert(vision)
    another = patch & F.pad(patch[:, :-1], (1, 0), value=False)
    step = (~another).long()
    return step.cumsum(dim=1) - step[:, :1]


class CogVLM2(nn.Module):
    """The whole model. `model.vision(pixels)` runs the vision tower alone; `model(...)` leaves the head out."""

    def __init__(self, *, vision: Mapping[str, Any], text: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(
                f"CogVLM2 computes attention with {', '.join(KERNELS)}, but got {kernel!r}; choose one of these"
            )
        self.model = Body(vision, text, kernel)
        self.lm_head = nn.Linear(text["hidden_size"], text["vocab_size"], bias=False)

    def forward(
        self,
        ids: Int[Tensor, "sample token"],
        pixels: Float[Tensor, "image 3 row col"],
        vision: Bool[Tensor, "sample token"],
    ) -> Float[Tensor, "sample token word"]:
        """Return the scores of the next word at every position."""
        scores: Tensor = self.lm_head(self.model(ids, pixels, vision))
        return scores


class Body(nn.Module):
    def __init__(self, vision: Mapping[str, Any], text: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        width = text["hidden_size"]
        self.embed_tokens = nn.Embedding(text["vocab_size"], width)
        self.layers = nn.ModuleList(DecoderLayer(text, kernel) for _ in range(text["num_hidden_layers"]))
        self.norm = RMSNorm(width, text["rms_norm_eps"])
        self.vision = VisionTower(vision, text, kernel)

    def forward(
        self,
        ids: Int[Tensor, "sample token"],
        pixels: Float[Tensor, "image 3 row col"],
        vision: Bool[Tensor, "sample token"],
    ) -> Float[Tensor, "sample token feature"]:
        """Return the last layer's output after the norm.

        `vision` marks the image positions of each sequence, begin and end included; the features of `pixels`
        fill them in order, whatever `ids` says there.
        """
        x = self.embed_tokens(ids)
        x = x.masked_scatter(vision[..., None], self.vision(pixels).to(x.dtype))
        expert, positions = vision_expert(vision), rope_positions(vision)
        for layer in self.layers:
            x = layer(x, expert, positions)
        normed: Tensor = self.norm(x)
        return normed


class DecoderLayer(nn.Module):
    def __init__(self, text: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(text["hidden_size"], text["rms_norm_eps"])
        self.self_attn = ExpertAttention(text, kernel)
        self.post_attention_layernorm = RMSNorm(text["hidden_size"], text["rms_norm_eps"])
        self.mlp = ExpertMLP(text)

    def forward(self, x: Tensor, expert: Tensor, positions: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), expert, positions)
        return x + self.mlp(self.post_attention_layernorm(x), expert)


class ExpertAttention(nn.Module):
    """Causal grouped-query attention; which expert made a query, key or value does not matter to it."""

    def __init__(self, text: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        width = text["hidden_size"]
        self.heads, self.shared = text["num_attention_heads"], text["num_multi_query_heads"]
        self.head_width = width // self.heads
        self.kernel = kernel
        mixed = width + 2 * self.shared * self.head_width
        self.rotary_emb = Rotary(self.head_width)
        self.vision_expert_query_key_value = nn.Linear(width, mixed)
        self.vision_expert_dense = nn.Linear(width, width, bias=False)
        self.language_expert_query_key_value = nn.Linear(width, mixed, bias=False)
        self.language_expert_dense = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, expert: Tensor, positions: Tensor) -> Tensor:
        mixed = _by_expert(
            x, expert, self.vision_expert_query_key_value, self.language_expert_query_key_value
        )
        heads = mixed.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.shared, self.shared), dim=1)
        cos, sin = self.rotary_emb(positions, x.dtype)
        # query heads i*g to i*g + g-1 share key head i
        group = self.heads // self.shared
        k, v = (a.repeat_interleave(group, dim=1) for a in (_rotate(k, cos, sin), v))
        seen = _attend(_rotate(q, cos, sin), k, v, causal=True, kernel=self.kernel)
        return _by_expert(
            seen.transpose(1, 2).flatten(2), expert, self.vision_expert_dense, self.language_expert_dense
        )


class ExpertMLP(nn.Module):
    def __init__(self, text: Mapping[str, Any]) -> None:
        super().__init__()
        self.language_mlp = GatedMLP(text)
        self.vision_mlp = GatedMLP(text)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        return _by_expert(x, expert, self.vision_mlp, self.language_mlp)


class GatedMLP(nn.Module):
    def __init__(self, text: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = text["hidden_size"], text["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class RMSNorm(nn.Module):
    """Scales by the root mean square, weight included, in float32; rounds to the input's type at the end."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (self.weight * wide).to(x.dtype)


class Rotary(nn.Module):
    """Rotary angles. The frequencies are a buffer of the checkpoint, and are used as they are stored.

    In bfloat16 the angles are rounded to bfloat16 too, as in the published code. In float32 they are exact for the
    frequencies as stored, which are bfloat16 in the published files.
    """

    inv_freq: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", rotary_frequencies(head_width))

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return (cos, sin), each [sample 1 token feature/2]."""
        angles = positions[:, None, :, None].to(self.inv_freq.dtype) * self.inv_freq
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotary_frequencies(head_width: int) -> Float[Tensor, " half"]:
    """Return the frequencies, in radians per position, of each pair (i, i + head_width/2) of features."""
    return ROPE_BASE ** -(torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)


class VisionTower(nn.Module):
    """Patches to decoder inputs: begin-of-image, the merged patches in raster order, end-of-image."""

    def __init__(self, vision: Mapping[str, Any], text: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        width = vision["hidden_size"]
        self.patch_embedding = PatchEmbedding(vision)
        self.transformer = VisionLayers(vision, kernel)
        self.conv = nn.Conv2d(width, width, kernel_size=2, stride=2)
        self.linear_proj = Adapter(width, text)
        self.boi = nn.Parameter(torch.zeros(1, 1, text["hidden_size"]))
        self.eoi = nn.Parameter(torch.zeros(1, 1, text["hidden_size"]))

    def forward(self, pixels: Float[Tensor, "image 3 row col"]) -> Float[Tensor, "image token feature"]:
        x = self.transformer(self.patch_embedding(pixels))[:, 1:]
        side = round(x.shape[1] ** 0.5)
        x = self.conv(x.transpose(1, 2).unflatten(2, (side, side)))
        x = self.linear_proj(x.flatten(2).transpose(1, 2))
        begin, end = (a.expand(len(x), -1, -1) for a in (self.boi, self.eoi))
        return torch.cat((begin, x, end), dim=1)


class PatchEmbedding(nn.Module):
    """Class token, then the patches in raster order, each with its learned position."""

    def __init__(self, vision: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch = vision["hidden_size"], vision["patch_size"]
        self.proj = nn.Conv2d(vision["in_channels"], width, kernel_size=patch, stride=patch)
        self.cls_embedding = nn.Parameter(torch.zeros(1, width))
        self.position_embedding = nn.Embedding(vision["num_positions"], width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.proj(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_embedding.expand(len(x), 1, -1), x), dim=1)
        return x + self.position_embedding.weight


class VisionLayers(nn.Module):
    def __init__(self, vision: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(vision, kernel) for _ in range(vision["num_hidden_layers"]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class VisionLayer(nn.Module):
    """Post-norm: what attention and MLP give is normalised, and then added. Nothing normalises their input."""

    def __init__(self, vision: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        width, eps = vision["hidden_size"], vision["layer_norm_eps"]
        self.attention = VisionAttention(vision, kernel)
        self.input_layernorm = nn.LayerNorm(width, eps=eps)
        self.mlp = VisionMLP(vision)
        self.post_attention_layernorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.input_layernorm(self.attention(x))
        return x + self.post_attention_layernorm(self.mlp(x))


class VisionAttention(nn.Module):
    def __init__(self, vision: Mapping[str, Any], kernel: str) -> None:
        super().__init__()
        width = vision["hidden_size"]
        self.heads, self.kernel = vision["num_heads"], kernel
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = _attend(q, k, v, causal=False, kernel=self.kernel)
        out: Tensor = self.dense(seen.transpose(1, 2).flatten(2))
        return out


class VisionMLP(nn.Module):
    def __init__(self, vision: Mapping[str, Any]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision["hidden_size"], vision["intermediate_size"])
        self.fc2 = nn.Linear(vision["intermediate_size"], vision["hidden_size"])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Adapter(nn.Module):
    """From the tower's width to the decoder's: linear, norm and GELU, then a gated MLP."""

    def __init__(self, width: int, text: Mapping[str, Any]) -> None:
        super().__init__()
        out, inner = text["hidden_size"], text["intermediate_size"]
        self.linear_proj = nn.Linear(width, out, bias=False)
        self.norm1 = nn.LayerNorm(out)
        self.dense_h_to_4h = nn.Linear(out, inner, bias=False)
        self.gate_proj = nn.Linear(out, inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.linear_proj(x)))
        out: Tensor = self.dense_4h_to_h(F.silu(self.gate_proj(x)) * self.dense_h_to_4h(x))
        return out


Layer = Callable[[Tensor], Tensor]


def _by_expert(x: Tensor, expert: Tensor, vision: Layer, language: Layer) -> Tensor:
    """Send each position through its expert; x is [sample token feature], expert [sample token]."""
    through_vision, through_language = vision(x[expert]), language(x[~expert])
    out = through_vision.new_empty(*x.shape[:-1], through_vision.shape[-1])
    out[expert], out[~expert] = through_vision, through_language
    return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, kernel: str) -> Tensor:
    """Return attention output, [sample head token feature] like its inputs."""
    if kernel == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    if kernel == "flash_attention_2":
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q / q.shape[-1] ** 0.5) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v
