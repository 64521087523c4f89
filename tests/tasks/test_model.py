"""The model stage: what a checkpoint is, known before it is loaded and without hashing it twice."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from flows import extract
from flows.cli import main
from flows.engine import perform, prepare
from foresight import models
from foresight.models.compiling import check_compiler
from tasks import model as model_stage


@pytest.fixture
def checkpoint(workplace: Path) -> Path:
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    family: Any = models.family(ref.card)
    family.load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(workplace / "tiny")
    return workplace / "tiny"


def planned(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["plan", "extract", "--samples", "4", *words])
    return done.exit_code, done.stderr


def test_a_torn_checkpoint_is_refused_while_planning(checkpoint: Path) -> None:
    assert planned("--vlm", f"qwen2.5-vl-tiny@path:{checkpoint}")[0] == 0
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, said = planned("--vlm", f"qwen2.5-vl-tiny@path:{checkpoint}")
    assert status == 2
    assert said.startswith("foresight: model.safetensors of qwen2.5-vl-tiny in tiny should have")
    assert len(said.splitlines()) == 1


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the weight files that were read to hash them."""
    plain, found = model_stage.file_sha256, []

    def counting(path: Path) -> str:
        found.append(path.name)
        return plain(path)

    monkeypatch.setattr(model_stage, "file_sha256", counting)
    return found


def test_a_local_folder_is_hashed_once_until_it_changes(checkpoint: Path, hashed: list[str]) -> None:
    ref = f"qwen2.5-vl-tiny@path:{checkpoint}"
    for _ in range(3):
        assert planned("--vlm", ref)[0] == 0
    assert hashed == ["model.safetensors"]
    (checkpoint / "model.safetensors").touch()
    planned("--vlm", ref)
    assert len(hashed) == 2


def adapted(checkpoint: Path, name: str, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model

    loaded = load_checkpoint(checkpoint)
    settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        get_peft_model(loaded.model, settings).save_pretrained(name)
    return Path(name)


def load_checkpoint(folder: Path) -> Any:
    ref = models.parse_ref(f"qwen2.5-vl-tiny@path:{folder}")
    return models.family(ref.card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")


def extracted(ref: str, *points: str) -> dict[str, tuple[str, np.ndarray]]:
    """Return content id and the first row's values by point."""
    outcome = perform(extract, extract.Settings(samples=4, vlm=[ref], points=list(points)))
    house, (look,) = outcome.house, (v for k, v in outcome.looks.items() if k.startswith("extract"))
    first = house.manifest.digests[0]
    return {
        p: (look.outputs[p], house.store.row(recipe, first).values)
        for p, recipe in look.values["recipes"].items()
    }


def test_an_adapter_makes_other_latents_where_it_reaches_and_is_named_by_its_content(
    checkpoint: Path,
) -> None:
    ref = f"qwen2.5-vl-tiny@path:{checkpoint}"
    one, other = adapted(checkpoint, "one", 1), adapted(checkpoint, "other", 2)
    found = {f: extracted(f"{ref}+adapter:{f}", "vit.4", "llm.2") for f in (one, other)}
    plain = extracted(ref, "vit.4", "llm.2")
    for values in found.values():
        np.testing.assert_array_equal(values["vit.4"][1], plain["vit.4"][1])
        assert np.abs(values["llm.2"][1] - plain["llm.2"][1]).max() > 1e-3
    assert np.abs(found[one]["llm.2"][1] - found[other]["llm.2"][1]).max() > 1e-3
    moved = Path(shutil.copytree(one, "moved"))
    again = perform(
        extract, extract.Settings(samples=4, vlm=[f"{ref}+adapter:{moved}"], points=["vit.4", "llm.2"])
    )
    assert again.to_json()["forwards"] == 0


def test_a_reference_with_an_adapter_is_read_and_shown() -> None:
    commit = models.get("qwen2.5-vl-7b").revision
    ref = models.parse_ref("qwen2.5-vl-7b+adapter:some/lora")
    assert (ref.kind, ref.value, ref.adapter, ref.short) == ("hub", commit, "some/lora", "qwen2.5-vl-7b+lora")
    assert models.parse_ref(str(ref)) == ref
    assert ref.random_twin().base == models.parse_ref("qwen2.5-vl-7b")
    for text, why in (
        ("ltx-video-tiny+adapter:lora", "ltx-video-tiny is a decoder"),
        ("qwen2.5-vl-tiny@random0+adapter:lora", "is random weights"),
        ("qwen2.5-vl-tiny+adapter:", "named by its folder"),
    ):
        with pytest.raises(ValueError, match=why):
            models.parse_ref(text)


def test_a_run_loads_just_the_layers_that_its_missing_rows_need(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = models.family(models.get("qwen2.5-vl-tiny"))
    plain, asked = family.load, []

    def counting(*given: Any, points: Any = None, **more: Any) -> Any:
        asked.append(points)
        return plain(*given, points=points, **more)

    monkeypatch.setattr(family, "load", counting)
    ref = f"qwen2.5-vl-tiny@path:{checkpoint}"
    shallow = extracted(ref, "vit.1", "vit.2")
    deep = extracted(ref, "vit.1", "vit.2", "llm.4")
    assert asked == [["vit.1", "vit.2"], ["llm.4"]]
    for point in ("vit.1", "vit.2"):
        assert shallow[point][0] == deep[point][0]  # the identity of a row does not know how much was loaded
    frames = perform(extract, extract.Settings(samples=4, vlm=[ref], points=["vit.2"])).house
    sample = frames.manifest.samples[0]
    loaded = load_checkpoint(checkpoint)
    from foresight import data

    whole = loaded.extract([frames.source.frames(sample, data.Sampling(frames=1))], ["llm.4"])[0]["llm.4"]
    np.testing.assert_allclose(deep["llm.4"][1], whole.values.numpy(), atol=1e-5)


def test_the_kernel_is_part_of_what_a_latent_is_and_a_decoder_has_none(workplace: Path) -> None:
    def run(**change: Any) -> dict[str, Any]:
        wanted = {"samples": 4, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["vit.2"]}
        done = perform(extract, extract.Settings(**wanted | {"decoder": "ltx-video-tiny@random0"} | change))
        return done.to_json()

    assert run()["rows_written"] == 8
    assert run(attention="sdpa")["rows_written"] == 0
    assert run(attention="eager")["rows_written"] == 4  # the autoencoder's rows do not depend on it
    with pytest.raises(ValueError, match="flash_attention_2 was asked for, but it needs a GPU"):
        run(attention="flash_attention_2", device="cpu")


def test_compiling_is_part_of_what_a_latent_is_where_there_are_blocks_to_compile(workplace: Path) -> None:
    wanted: dict[str, Any] = {"samples": 4, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["vit.2"]}
    wanted["decoder"] = "ltx-video-tiny@random0"

    def recipes(**change: Any) -> dict[str, dict[str, Any]]:
        looks = prepare(extract, extract.Settings(**wanted | change)).looks
        return {
            p: dict(r.settings)
            for look in looks
            if look.name.startswith("extract")
            for p, r in look.recipes.items()
        }

    plain, compiled = recipes(), recipes(compile=True)
    assert compiled["vit.2"] == plain["vit.2"] | {"compiled": "inductor"}
    assert compiled["latent"] == plain["latent"]
    with pytest.raises(ValueError, match="a model is compiled or spread, but got both"):
        recipes(compile=True, spread=True)


@pytest.mark.slow
def test_a_compiled_run_writes_rows_of_its_own_that_are_the_plain_ones_to_rounding(workplace: Path) -> None:
    check_compiler("cpu")
    found = {}
    for compiled in (False, True):
        wanted = {"samples": 4, "vlm": ["dinov2-tiny"], "points": ["vit.2"], "compile": compiled}
        done = perform(extract, extract.Settings(**wanted))
        assert done.to_json()["rows_written"] == 4
        (look,) = (v for k, v in done.looks.items() if k.startswith("extract"))
        first = done.house.manifest.digests[0]
        found[compiled] = done.house.store.row(look.values["recipes"]["vit.2"], first).values
    assert 0 < np.abs(found[True] - found[False]).max() < 1e-4


def test_deterministic_mode_is_told_with_the_rows_and_left_afterwards(workplace: Path) -> None:
    wanted = {"samples": 4, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["vit.2", "llm.4"]}
    perform(extract, extract.Settings(**wanted, deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()
    files = [p.read_bytes() for p in Path("runs/store").rglob("zarr.json")]
    assert any(re.search(rb'"deterministic":\s*true', content) for content in files)
    assert perform(extract, extract.Settings(**wanted)).to_json()["forwards"] == 0  # no other latent


def test_a_spread_request_on_a_machine_without_a_gpu_gives_the_same_rows(checkpoint: Path) -> None:
    ref = f"qwen2.5-vl-tiny@path:{checkpoint}"
    wanted = {"samples": 4, "vlm": [ref], "points": ["vit.2", "merged", "llm.4"]}
    found = []
    for spread in (False, True):
        done = perform(extract, extract.Settings(**wanted, spread=spread, store=f"store-{spread}"))
        found.append(done.looks["extract qwen2.5-vl-tiny@tiny"].outputs)
    assert found[0] == found[1]
