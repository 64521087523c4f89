"""Cards from TOML: models of several libraries and layouts, each token at its place, nothing guessed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torchvision.transforms.v2 import functional as tv

import store
from flows import extract
from flows.cli import main
from flows.engine import perform
from foresight import models
from foresight.models.declaration import read
from foresight.models.declared import DeclaredModel
from foresight.models.device import resolve_attention
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import KINDS, Frames
from tests.conftest import frames_of
from tests.foresight.models.encoders_planted import reloaded
from tests.foresight.models.values import TOLERANCE, relative

LOAD = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}

VIT = """
[[model]]
name = "own-vit"
code = "transformers:ViTModel"
size = [48, 48]
default_points = ["vit.2"]

[model.arguments]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
image_size = 48
patch_size = 8
initializer_range = 0.3

[model.input]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
resize = [48, 48]
argument = "pixel_values"

[[model.points]]
name = "patch"
path = "embeddings"
width = 32
cell = 8
before = ["class"]

[[model.points]]
name = "vit.2"
path = "layers.1"
width = 32
cell = 8
before = ["class"]
"""

RESNET = """
[[model]]
name = "own-resnet"
code = "torchvision.models:resnet18"
size = [64, 64]

[[model.points]]
name = "stage.1"
path = "layer1"
width = 64
layout = "NCHW"
cell = 4
first = 0.5
rounding = "ceil"

[[model.points]]
name = "stage.2"
path = "layer2"
width = 128
layout = "NCHW"
cell = 8
first = 0.5
rounding = "ceil"
"""

SWIN = """
[[model]]
name = "own-swin"
code = "torchvision.models.swin_transformer:SwinTransformer"
arguments = {patch_size = [4, 4], embed_dim = 16, depths = [1, 1], num_heads = [2, 2], window_size = [4, 4]}
size = [64, 64]
input = {multiple_of = 8}

[[model.points]]
name = "stage.1"
path = "features.1"
width = 16
layout = "NHWC"
cell = 4

[[model.points]]
name = "stage.2"
path = "features.3"
width = 32
layout = "NHWC"
cell = 8
"""

VIDEO = """
[[model]]
name = "own-videomae"
code = "transformers:VideoMAEModel"
size = [32, 32]
input = {resize = [32, 32], clip = "NTCHW", frames = 4}

[model.arguments]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
image_size = 32
patch_size = 8
num_frames = 4
tubelet_size = 2
initializer_range = 0.3

[[model.points]]
name = "vit.1"
path = "encoder.layer.0"
width = 32
cell = 8
frames_per_cell = 2
"""

LOCAL = """
[[model]]
name = "own-net"
code = "tests.foresight.models.nets:build"
local_code = true
arguments = {width = 12}
size = [48, 48]

[[model.points]]
name = "mixed"
path = "mix"
width = 12
cell = 8
order = "columns"
before = ["class", "register"]
after = ["register"]
"""

AUTOENCODER = """
[[model]]
name = "own-vae"
code = "diffusers:AutoencoderKL"
size = [32, 32]
input = {mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5], multiple_of = 2}

[model.arguments]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
block_out_channels = [8, 8]
norm_num_groups = 2
latent_channels = 4

[[model.points]]
name = "moments"
path = "quant_conv"
width = 8
layout = "NCHW"
cell = 2
"""

ALL = {"own-vit": VIT, "own-resnet": RESNET, "own-swin": SWIN, "own-net": LOCAL, "own-vae": AUTOENCODER}
BATCH = [
    frames_of(48, 48),
    frames_of(41, 83, seed=1),
    frames_of(64, 50, time=2, seed=2),
]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back what a test declares."""
    known = models.cards()
    kept = dict(known)
    yield
    known.clear()
    known.update(kept)


def declared(toml: str, folder: Path) -> models.Card:
    file = folder / "cards.toml"
    file.write_text(toml)
    models.declare([file])
    return read(file)[0]


def loaded(toml: str, folder: Path) -> DeclaredModel:
    card = declared(toml, folder)
    found: DeclaredModel = models.family(card).load(models.parse_ref(card.name), None, **LOAD)
    return found


def nearest(tokens: Any, row: float, col: float, frame: int) -> int:
    """Return the patch whose declared centre is nearest to a place of a frame."""
    patches = int(np.prod(tokens.grid))
    own = patches // tokens.grid[0]
    away = np.hypot(tokens.row[:patches] - row, tokens.col[:patches] - col)
    return frame * own + int(away[frame * own : (frame + 1) * own].argmin())


@pytest.mark.parametrize("name", ALL)
def test_the_token_nearest_to_a_changed_pixel_responds_most(name: str, tmp_path: Path) -> None:
    model = loaded(ALL[name], tmp_path)
    point = models.points(model.card)[0].name
    cell = model.card.config["points"][0]["cell"]
    before = model.extract(BATCH, [point])
    for index, frames in enumerate(BATCH):
        for row_share, col_share in [(0.1, 0.1), (0.3, 0.8), (0.9, 0.4)]:
            row, col = row_share * frames.size[0], col_share * frames.size[1]
            token = nearest(before[index][point], row, col, 0)
            row, col = (float(getattr(before[index][point], a)[token]) for a in ("row", "col"))
            pixels = frames.pixels.copy()
            reach = max(int(cell) // 2 - 1, 1)
            here = tuple(slice(max(int(at) - reach, 0), int(at) + reach + 1) for at in (row, col))
            pixels[(0, *here)] = 255 - pixels[(0, *here)]
            changed = [*BATCH]
            changed[index] = Frames(pixels=pixels, times_s=frames.times_s)
            after = model.extract(changed, [point])
            moved = [
                (a[point].values - b[point].values).norm(dim=1) for a, b in zip(after, before, strict=True)
            ]
            _, rows, cols = before[index][point].grid
            most = np.unravel_index([int(moved[index].argmax()), token], (len(frames.pixels), rows, cols))
            # kernels that overlap, 2 and 7 in a row: a cell beside it may respond as much
            near = {"own-resnet": 1, "own-vae": 3}.get(model.card.name, 0)
            assert all(abs(int(a[0]) - int(a[1])) <= near for a in most)
            assert all(float(m.max()) < 1e-4 for i, m in enumerate(moved) if i != index)


def test_a_declared_vit_gives_the_plain_forward_with_patches_first(tmp_path: Path) -> None:
    model = loaded(VIT, tmp_path)
    frames = frames_of(41, 83, time=2)
    pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2)
    pixels = tv.resize(pixels, [48, 48], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    with torch.no_grad():
        plain = model.model((pixels / 255 - 0.5) / 0.25, output_hidden_states=True).hidden_states[2]
    ours = model.extract([frames], ["vit.2"])[0]["vit.2"]
    assert ours.grid == (2, 6, 6)
    assert relative(ours.values, torch.cat([plain[:, 1:].flatten(0, 1), plain[:, 0]])) < TOLERANCE
    assert [KINDS[k] for k in ours.kind[72:]] == ["class", "class"]
    np.testing.assert_allclose(ours.col[:6], (np.arange(6) + 0.5) * 83 / 6, rtol=1e-6)
    np.testing.assert_allclose(ours.time_s[72:], [0.0, 0.25])


def test_columns_become_rows_and_the_tokens_around_them_follow(tmp_path: Path) -> None:
    model = loaded(LOCAL, tmp_path)
    frames = frames_of(48, 64)
    pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        raster = model.model.mix(model.model.cut(pixels).flatten(2).transpose(1, 2))[0]
        around = model.model.mix(torch.cat([model.model.before, model.model.after]))
    ours = model.extract([frames], ["mixed"])[0]["mixed"]
    assert ours.grid == (1, 6, 8)
    assert relative(ours.values, torch.cat([raster, around])) < TOLERANCE
    assert [KINDS[k] for k in ours.kind[48:]] == ["class", "register", "register"]


def test_a_convolution_says_where_its_first_cell_looks(tmp_path: Path) -> None:
    model = loaded(RESNET, tmp_path)
    tokens = model.extract([frames_of(41, 83)], ["all"])[0]
    assert tokens["stage.1"].grid == (1, 11, 21)
    np.testing.assert_allclose(tokens["stage.1"].row[::21][:11], 0.5 + np.arange(11) * 4)
    plain = model.model.layer1(model.model.maxpool(model.model.relu(model.model.bn1(model.model.conv1(
        torch.from_numpy(frames_of(41, 83).pixels.copy()).permute(0, 3, 1, 2) / 255)))))  # fmt: skip
    expected = plain.detach().flatten(2)[0].T
    assert relative(tokens["stage.1"].values, expected) < TOLERANCE


def test_a_whole_clip_goes_in_at_once_and_its_steps_have_the_mean_time_of_their_frames(
    tmp_path: Path,
) -> None:
    model = loaded(VIDEO, tmp_path)
    clip = frames_of(32, 32, time=4, step_s=0.5)
    ours = model.extract([clip, frames_of(40, 32, time=4, seed=1)], ["vit.1"])[0]["vit.1"]
    pixels = torch.from_numpy(clip.pixels.copy()).permute(0, 3, 1, 2)[None] / 255
    with torch.no_grad():
        plain = model.model(pixels, output_hidden_states=True).hidden_states[1][0]
    assert ours.grid == (2, 4, 4)
    assert relative(ours.values, plain) < TOLERANCE
    assert ours.time_s[::16].tolist() == [0.25, 1.25]
    changed = clip.pixels.copy()
    changed[2:, 8:16, 24:32] = 255 - changed[2:, 8:16, 24:32]
    after = model.extract([Frames(pixels=changed, times_s=clip.times_s)], ["vit.1"])[0]["vit.1"]
    most = int((after.values - ours.values).norm(dim=1).argmax())
    assert (ours.time_s[most], ours.row[most], ours.col[most]) == (1.25, 12.0, 28.0)
    card = model.card
    with pytest.raises(ValueError, match="takes clips of 4 frames, but got 6; ask for --frames 4"):
        models.family(card).grid(card, models.points(card)[0], (32, 32), 6)


@pytest.mark.parametrize("name", ALL)
def test_planned_grids_and_counts_are_those_that_come_out(name: str, tmp_path: Path) -> None:
    model = loaded(ALL[name], tmp_path)
    for frames, found in zip(BATCH, model.extract(BATCH, ["all"]), strict=True):
        for point in models.points(model.card):
            asked = (model.card, point, frames.size, len(frames.pixels))
            assert models.family(model.card).grid(*asked) == found[point.name].grid
            assert models.token_count(*asked) == len(found[point.name].values)


@pytest.mark.parametrize("name", ALL)
def test_a_saved_model_gives_the_same_values_and_is_refused_by_another_card(
    name: str, tmp_path: Path
) -> None:
    model = loaded(ALL[name], tmp_path)
    again = reloaded(model, tmp_path / "saved")
    for a, b in zip(model.extract(BATCH, ["all"]), again.extract(BATCH, ["all"]), strict=True):
        for point in a:
            assert torch.equal(a[point].values, b[point].values)
    other = declared(ALL["own-swin" if name != "own-swin" else "own-resnet"], tmp_path)
    ref = models.parse_ref(f"{other.name}@path:{tmp_path / 'saved'}")
    with pytest.raises(WrongCheckpoint):
        models.family(other).load(ref, tmp_path / "saved", **LOAD)


def test_a_pass_ends_after_the_deepest_point(tmp_path: Path) -> None:
    model = loaded(RESNET, tmp_path)
    reached: list[int] = []
    handle = model.model.layer2.register_forward_hook(lambda *_: reached.append(1))
    whole = model.extract([BATCH[0]], ["all"])[0]
    assert reached == [1]
    part = model.extract([BATCH[0]], ["stage.1"])[0]
    assert reached == [1]
    assert torch.equal(part["stage.1"].values, whole["stage.1"].values)
    handle.remove()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "cell = 8\nbefore",
            "cell = 16\nbefore",
            r"declared to be \[N L=10 C=32\], but .* returned \[1, 37, 32\]",
        ),
        ('before = ["class"]', "", r"declared to be \[N L=36 C=32\]"),
        ("width = 32\ncell", "width = 33\ncell", r"C=33\]"),
        ('layout = "NCHW"', "", "unreachable"),
    ],
)
def test_what_comes_out_is_held_against_the_declaration(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    if said == "unreachable":
        model, point = loaded(RESNET.replace(old, new), tmp_path), "stage.1"
        said = r"declared to be \[N L=144 C=64\], but layer1 returned \[1, 64, 12, 12\]"
    else:
        model, point = loaded(VIT.replace(old, new), tmp_path), "patch"
    with pytest.raises(ValueError, match=said):
        model.extract([frames_of(48, 48)], [point])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "own-vit"', 'name = "clip-tiny"', "'clip-tiny' of cards.toml is also one of this project"),
        ("width = 32", "widht = 32", r"model own-vit, points.0.widht: Extra inputs are not permitted"),
        ("width = 32", "width = 0", r"points.0.width: .* but got 0"),
        ("cell = 8", "cell = -8", r"points.0.cell"),
        ("cell = 8", 'cell = 8\nlayout = "NLQ"', r"names each axis once: N, C, and L .* but got 'NLQ'"),
        ("cell = 8", 'cell = 8\nlayout = "NHWC"', r"are of layouts with L, but the layout is NHWC"),
        (
            'default_points = ["vit.2"]',
            'default_points = ["vit.9"]',
            r"names vit.9, but the points are patch, vit.2",
        ),
        ('name = "patch"', 'name = "vit.2"', "each point has a name of its own"),
        (
            "transformers:ViTModel",
            "os:system",
            "code of transformers, .* is named freely, but got 'os:system'",
        ),
        ("transformers:ViTModel", "transformers.ViTModel", "String should match pattern"),
        (
            "hidden_size = 32",
            "pretrained = true",
            "weights are read from safetensors .* the arguments hold pretrained",
        ),
        ("hidden_size = 32", "hidden_size = nan", "another kind of value"),
        ("hidden_size = 32", "hidden_size = 1979-05-27", "another kind of value"),
        (
            "resize = [48, 48]",
            "resize = [48, 48]\nmultiple_of = 8",
            "has `resize` or `multiple_of`, but got both",
        ),
        ("resize = [48, 48]", "resize = [48, 48]\nframes = 8", "`frames` is for clips that go in whole"),
        ("cell = 8", "cell = 8\nframes_per_cell = 2", "say how a clip goes in"),
        ("[[model]]", "[[models]]", r"is to hold \[\[model\]\] tables and nothing else, but got models"),
        ("[[model]]", "[[model", r"cards.toml cannot be read"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in VIT
    with pytest.raises(ValueError, match=said):
        declared(VIT.replace(old, new, 1), tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml cannot be read"):
        models.declare([tmp_path / "nowhere.toml"])


def test_two_files_do_not_declare_one_name_and_a_changed_file_replaces_its_card(tmp_path: Path) -> None:
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for file in files:
        file.write_text(VIT)
    with pytest.raises(ValueError, match=r"'own-vit' of b.toml is also one of a.toml"):
        models.declare(files)
    assert "own-vit" not in models.cards()
    models.declare(files[:1])
    files[0].write_text(VIT.replace("size = [48, 48]", "size = [96, 96]", 1))
    models.declare(files[:1])
    assert models.get("own-vit").size == (96, 96)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (VIT.replace("ViTModel", "pipeline"), "is no model of transformers; name a model class"),
        (VIT.replace("ViTModel", "NoSuchModel"), "cannot be imported here"),
        (VIT.replace("transformers:", "torchvision.models:"), "cannot be imported here"),
        (RESNET.replace("torchvision.models:resnet18", "torchvision.io:read_image"), "is no model of torchvision"),
        (RESNET.replace("torchvision.models:resnet18", "timm:create_model"), "cannot be imported here .*timm"),
        (LOCAL.replace(":build", ":no_model").replace("{width = 12}", "{}"), "a torch.nn.Module, but gave a str"),
    ],
)  # fmt: skip
def test_only_models_are_run(toml: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        loaded(toml, tmp_path)


def test_a_point_at_no_module_is_told_what_lies_beside_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"at layers.7, but ViTModel has no such module; .*layers.0, layers.1"):
        loaded(VIT.replace("layers.1", "layers.7"), tmp_path)


def test_weights_that_do_not_fit_or_are_not_there_are_refused(tmp_path: Path) -> None:
    model = loaded(LOCAL, tmp_path)
    model.save(tmp_path / "saved")
    wider = declared(LOCAL.replace("width = 12", "width = 16"), tmp_path)
    ref = models.parse_ref(f"own-net@path:{tmp_path / 'saved'}")
    with pytest.raises(WrongCheckpoint, match="does not hold the weights of own-net"):
        models.family(wider).load(ref, tmp_path / "saved", **LOAD)
    (tmp_path / "saved" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "saved" / "model.pt")
    with pytest.raises(WrongCheckpoint, match=r"only model.pt, which can run code"):
        models.family(wider).load(ref, tmp_path / "saved", **LOAD)


def kernels(toml: str, folder: Path) -> tuple[str, ...]:
    return models.kernels(declared(toml, folder))


def with_attention(toml: str, names: str) -> str:
    return toml.replace("\nsize = ", f"\nattention = [{names}]\nsize = ", 1)


def test_a_class_has_the_attention_kernels_it_says_and_other_code_none(tmp_path: Path) -> None:
    assert kernels(VIT, tmp_path) == ("flash_attention_2", "sdpa", "eager")
    some = VIT.replace("transformers:ViTModel", "transformers:{}")
    # gemma 2 caps its scores, which SDPA cannot; a ResNet has no attention
    assert kernels(some.format("Gemma2Model"), tmp_path) == ("flash_attention_2", "eager")
    assert kernels(some.format("ResNetModel"), tmp_path) == ()
    assert kernels(SWIN, tmp_path) == kernels(LOCAL, tmp_path) == ()


def test_declared_kernels_are_the_ones_chosen_from_and_the_fastest_goes_first(tmp_path: Path) -> None:
    assert kernels(with_attention(VIT, '"eager", "sdpa"'), tmp_path) == ("sdpa", "eager")
    assert kernels(with_attention(VIT, ""), tmp_path) == ()
    only = loaded(with_attention(VIT, '"eager"'), tmp_path)
    chosen = resolve_attention("cpu", "float32", kernels=models.kernels(only.card))
    assert chosen == "eager"
    again = models.family(only.card).load(models.parse_ref("own-vit"), None, **LOAD | {"attention": chosen})
    assert again.model.config._attn_implementation == "eager"


def test_a_kernel_is_refused_where_none_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"attention\.0: Input should be 'flash_attention_2', 'sdpa' or 'eag"
    ):
        declared(with_attention(VIT, '"fast"'), tmp_path)
    with pytest.raises(ValueError, match="chosen for classes of transformers, but the code is torchvision"):
        declared(with_attention(SWIN, '"sdpa"'), tmp_path)
    with pytest.raises(ValueError, match="is none; leave `attention` out of"):
        loaded(with_attention(LOCAL, '"sdpa"'), tmp_path)


def test_what_a_declaration_changes_is_identity_of_just_the_points_it_touches(tmp_path: Path) -> None:
    def identities(toml: str) -> dict[str, str]:
        card = declared(toml, tmp_path)
        return {
            p.name: json.dumps(models.preprocessing(card, p), sort_keys=True) for p in models.points(card)
        }

    plain = identities(VIT)
    assert identities(VIT.replace('name = "vit.2"', 'name = "vit.2"\nabout = "words"')) == plain
    cut = identities(VIT.replace('path = "layers.1"', 'path = "layers.0"'))
    assert cut["patch"] == plain["patch"]
    assert cut["vit.2"] != plain["vit.2"]
    lighter = identities(VIT.replace("mean = [0.5,", "mean = [0.4,"))
    assert all(lighter[p] != plain[p] for p in plain)
    assert "source" in json.loads(identities(LOCAL)["mixed"])


def told(*words: str, status: int = 0) -> Any:
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == status, result.output + str(result.exception)
    return json.loads(result.stdout)


def test_a_declared_card_runs_like_any_other_and_a_second_run_reuses_its_rows(workplace: Path) -> None:
    (workplace / "mine.toml").write_text(VIT)
    shown = told("models", "own-vit", "--cards", "mine.toml")
    assert [(p["point"], p["tokens"]) for p in shown["points"]] == [("patch", 37), ("vit.2", 37)]
    settings = extract.Settings(vlm=["own-vit"], points=["all"], samples=4, cards=["mine.toml"])
    written = [perform(extract, settings).house.rows_written for _ in range(2)]
    assert written == [8, 0]
    (workplace / "mine.toml").write_text(VIT.replace("mean = [0.5,", "mean = [0.4,"))
    assert perform(extract, settings).house.rows_written == 8
    latents = store.open("runs/store")
    assert {u.point for u in latents.du()} == {"patch", "vit.2"}


def test_cards_are_also_found_in_the_runs_folder_and_by_environment(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "runs" / "cards").mkdir(parents=True)
    (workplace / "runs" / "cards" / "vit.toml").write_text(VIT)
    (workplace / "swin.toml").write_text(SWIN)
    monkeypatch.setenv("FORESIGHT_CARDS", str(workplace / "swin.toml"))
    listed = {c["card"] for c in told("models")["cards"]}
    assert {"own-vit", "own-swin"} <= listed
    monkeypatch.delenv("FORESIGHT_CARDS")
    bad = workplace / "runs" / "cards" / "bad.toml"
    bad.write_text(textwrap.dedent(VIT).replace("cell = 8", "cel = 8", 1))
    failed = told("models", status=2)
    assert "bad.toml, model own-vit, points.0.cel" in failed["error"]
