"""What a user may set, as one flat form: the command line, the Prefect form and the flows share it."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SIZE = r"^([1-9][0-9]{0,3}x[1-9][0-9]{0,3})?$"
"""HEIGHTxWIDTH in px, or nothing."""


def in_form_order(schema: dict[str, Any]) -> None:
    """Number the fields of a form: what an experiment adds stands after the models and points it goes with."""
    common = list(Settings.model_fields)
    after = common.index("points") + 1
    added = [name for name in schema["properties"] if name not in common]
    for position, name in enumerate([*common[:after], *added, *common[after:]]):
        schema["properties"][name]["position"] = position


class Settings(BaseModel):
    """Settings every experiment shares."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=in_form_order)

    data: str = Field(
        "synthetic",
        title="Data",
        description="What to look at: synthetic, synthetic:scenes, synthetic:moving; folder:DIR for a folder of "
        "images and clips whose subfolders are the labels; coco:DIR; ssv2:DIR. Options follow the folder: "
        "ssv2:DIR?split=train&per_class=20.",
    )
    samples: int | None = Field(
        None,
        ge=4,
        le=10_000_000,
        title="Samples",
        description="How many samples; empty takes all (synthetic: 500).",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, title="Seed", description="Seed of the data, the splits and the resampling."
    )
    frames: int = Field(
        1, ge=1, le=1025, title="Frames", description="Frames per clip; stills always give one."
    )
    vlm: list[str] = Field(
        ["qwen2.5-vl-tiny"],
        min_length=1,
        title="Vision-language models",
        description="One or several: CARD, CARD@seed1, CARD@path:DIR or CARD@COMMIT.",
    )
    points: list[str] = Field(
        [],
        title="Extraction points",
        description="Layers of these models, as `foresight models CARD` lists them; empty: the card's.",
    )
    cards: list[str] = Field(
        [],
        title="Card files",
        description="TOML files that declare further models; those in runs/cards are always read.",
    )
    size: str = Field(
        "",
        pattern=SIZE,
        title="Frame size",
        description="HEIGHTxWIDTH in px that frames are cropped and resized to, before a model's own "
        "preprocessing; empty: each card's own.",
    )
    decoder_size: str = Field(
        "",
        pattern=SIZE,
        title="Frame size for a decoder",
        description="The same where the model is a video decoder.",
    )
    dtype: Literal["card", "float32", "float16", "bfloat16"] = Field(
        "card", title="Compute type", description="'card' takes each model's own."
    )
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        "auto",
        title="Attention kernel",
        description="Part of what a latent is; 'auto' takes the fastest that runs here.",
    )
    compile: bool = Field(
        False,
        title="Compile",
        description="Compile transformer blocks (torch.compile); part of what a latent is: they then round otherwise.",
    )
    deterministic: bool = Field(
        False,
        title="Deterministic",
        description="Deterministic kernels only: the same batches give the same bits, more slowly.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", title="Device", description="Where models run.")
    spread: bool = Field(
        False,
        title="Spread over GPUs",
        description="Spread each model's layers over all GPUs, and memory where they do not fit.",
    )
    batch: int | None = Field(
        None, ge=1, le=4096, title="Batch size", description="Samples per forward pass; empty: by model."
    )
    workers: int = Field(
        2, ge=0, le=256, title="Decoding threads", description="Threads that decode ahead of the model."
    )
    dask: str = Field(
        "",
        pattern=r"^((tcp|tls|ws|wss|ucx)://\S+)?$",
        title="Dask scheduler",
        description="Address of a Dask scheduler (tcp://HOST:PORT) that computes the analyses; empty: this process.",
    )
    store: str = Field("runs/store", title="Latent store", description="Its folder or URL.")
    out: str = Field(
        "",
        title="Report folder",
        description="Folder for the report; empty: runs/ and the experiment's name.",
    )
    refresh: list[str] = Field(
        [],
        title="Stages to compute again",
        description="They are compared with what is stored; by name, as the plan lists them.",
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
        "ltx-video-tiny",
        title="Video decoder",
        description="CARD, CARD@seed1, CARD@path:DIR or CARD@COMMIT.",
    )
    decoder_points: list[str] = Field(
        [],
        title="Point of the decoder",
        description="The one that is compared; empty: its card's.",
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

    decoder: str = Field("", title="Video decoder", description="A decoder to extract too; empty: none.")
    decoder_points: list[str] = Field([], title="Points of the decoder", description="Empty: its card's.")
    part: str = Field(
        "",
        pattern=r"^([1-9][0-9]*/[1-9][0-9]*)?$",
        title="Part of the samples",
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
