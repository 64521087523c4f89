"""What a user may set, as one flat form: the command line, the Prefect form and the flows share it."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SIZE = r"^([1-9][0-9]{0,3}x[1-9][0-9]{0,3})?$"
"""HEIGHTxWIDTH in px, or nothing."""


class Settings(BaseModel):
    """Settings every experiment shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(
        "synthetic",
        description="What to look at: synthetic, synthetic:scenes, synthetic:moving; folder:DIR for a folder of "
        "images and clips whose subfolders are the labels; coco:DIR; ssv2:DIR. Options follow the folder: "
        "ssv2:DIR?split=train&per_class=20.",
    )
    samples: int | None = Field(
        None, ge=4, le=10_000_000, description="How many samples; empty takes all (synthetic: 500)."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the data, the splits and the resampling.")
    frames: int = Field(1, ge=1, le=1025, description="Frames per clip; stills always give one.")
    size: str = Field(
        "",
        pattern=SIZE,
        description="HEIGHTxWIDTH in px that frames are cropped and resized to for the VLMs, before a model's own "
        "preprocessing; empty: each card's own.",
    )
    decoder_size: str = Field("", pattern=SIZE, description="The same for the decoder.")
    vlm: list[str] = Field(
        ["qwen2.5-vl-tiny"],
        min_length=1,
        description="Vision-language models: CARD, CARD@seed1, CARD@path:DIR or CARD@COMMIT.",
    )
    cards: list[str] = Field(
        [], description="TOML files that declare further models; those in runs/cards are always read."
    )
    points: list[str] = Field(
        [],
        description="Extraction points of the VLMs, as `foresight models CARD` lists them; empty: the card's.",
    )
    dtype: Literal["card", "float32", "float16", "bfloat16"] = Field(
        "card", description="Compute type; 'card' takes each model's own."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run.")
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        "auto",
        description="Attention kernel, part of what a latent is; 'auto' takes the fastest that runs here.",
    )
    spread: bool = Field(
        False, description="Spread each model's layers over all GPUs, and memory where they do not fit."
    )
    deterministic: bool = Field(
        False, description="Deterministic kernels only: the same batches give the same bits, more slowly."
    )
    compile: bool = Field(
        False,
        description="Compile transformer blocks (torch.compile); part of what a latent is: they then round otherwise.",
    )
    store: str = Field("runs/store", description="Folder (or URL) of the latent store.")
    out: str = Field("", description="Folder for the report; empty: runs/ and the experiment's name.")
    batch: int | None = Field(None, ge=1, le=4096, description="Samples per forward pass; empty: by model.")
    workers: int = Field(2, ge=0, le=256, description="Threads that decode ahead of the model.")
    dask: str = Field(
        "",
        pattern=r"^((tcp|tls|ws|wss|ucx)://\S+)?$",
        description="Address of a Dask scheduler (tcp://HOST:PORT) that computes the analyses; empty: this process.",
    )
    refresh: list[str] = Field(
        [],
        description="Stages to compute again and compare with what is stored, by name, as the plan lists them.",
    )

    @model_validator(mode="after")
    def _compiled_in_one_place(self) -> Self:
        if self.compile and self.spread:
            raise ValueError("a model is compiled or spread, but got both; leave out --compile or --spread")
        return self

    @field_validator("vlm", "cards", "points", "refresh")
    @classmethod
    def _no_repeats(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError(f"each is named once, but got {value}")
        return value


class AlignmentSettings(Settings):
    """Settings of the alignment study."""

    decoder: str = Field(
        "ltx-video-tiny", description="Video decoder: CARD, CARD@seed1, CARD@path:DIR, CARD@COMMIT."
    )
    decoder_points: list[str] = Field(
        [], description="The point of the decoder that is compared; empty: its card's."
    )

    @model_validator(mode="after")
    def _same_part_of_every_picture(self) -> Self:
        (h, w), (high, wide) = (size_of(s) or (1, 1) for s in (self.size, self.decoder_size))
        if h * wide != w * high:
            raise ValueError(
                "models that are compared see the same part of each picture, so --size and --decoder-size have "
                f"their sides in one ratio, but got {self.size or 'a square'} and {self.decoder_size or 'a square'}; "
                "give both"
            )
        return self


class ExtractSettings(Settings):
    """Settings of an extraction on its own."""

    decoder: str = Field("", description="A decoder to extract too; empty: none.")
    decoder_points: list[str] = Field([], description="Points of the decoder; empty: its card's.")
    part: str = Field(
        "",
        pattern=r"^([1-9][0-9]*/[1-9][0-9]*)?$",
        description="One part of the samples, as in 2/8, for workers that share one store; empty takes all.",
    )

    @field_validator("part")
    @classmethod
    def _within(cls, value: str) -> str:
        if value and int(value.split("/")[0]) > int(value.split("/")[1]):
            raise ValueError("a part is I/N with I from 1 to N")
        return value


def size_of(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) px from 'HxW', None for nothing. Raises `ValueError` for anything else."""
    if not text:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) for p in parts):
        raise ValueError(f"a size is HEIGHTxWIDTH in pixels, as in 448x672, but got {text!r}")
    return int(parts[0]), int(parts[1])
