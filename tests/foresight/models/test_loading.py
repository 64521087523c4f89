"""A checkpoint is the model its card names, whole and safe, or it is refused in one sentence."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foresight import models
from foresight.models.loading import WrongCheckpoint, merge_adapter
from tests.conftest import frames_of

CARD = models.get("qwen2.5-vl-tiny")
FAMILY = models.family(CARD)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in four shards with an index, as large models are saved."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    loaded = load_random()
    loaded.save(folder)
    loaded.model.save_pretrained(folder, max_shard_size="1300KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def load_random() -> Any:
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    return FAMILY.load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def load(folder: Path, **change: Any) -> Any:
    ref = models.parse_ref(f"qwen2.5-vl-tiny@path:{folder}")
    return FAMILY.load(ref, folder, **{"device": "cpu", "dtype": "float32", "attention": "sdpa"} | change)


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_sharded_checkpoint_has_the_values_it_was_saved_with(checkpoint: Path) -> None:
    mine, saved = load(checkpoint).model.state_dict(), load_random().model.state_dict()
    assert all(torch.equal(mine[k], saved[k]) for k in saved)


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    gone = sorted(checkpoint.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(WrongCheckpoint, match=rf"{gone.name} is not in copy; fetch the whole checkpoint"):
        load(checkpoint)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_torn_shard_is_named(checkpoint: Path, keep: int) -> None:
    torn = sorted(checkpoint.glob("*.safetensors"))[0]
    torn.write_bytes(torn.read_bytes()[:keep])
    with pytest.raises(
        WrongCheckpoint, match=rf"{torn.name} of qwen2.5-vl-tiny in copy .*fetch that file again"
    ):
        load(checkpoint)


def test_a_page_that_was_saved_under_a_weight_file_s_name_is_refused(checkpoint: Path) -> None:
    page = sorted(checkpoint.glob("*.safetensors"))[0]
    page.write_text("<html><body>429 Too Many Requests</body></html>")
    with pytest.raises(WrongCheckpoint, match="is no safetensors file"):
        load(checkpoint)


def test_a_checkpoint_of_another_class_is_refused_before_its_weights_are_read(checkpoint: Path) -> None:
    change_json(checkpoint / "config.json", lambda c: c.update(model_type="llava_next"))
    with pytest.raises(WrongCheckpoint, match="is a qwen2_5_vl, but the checkpoint in copy is a llava_next"):
        load(checkpoint)


def test_another_size_of_the_same_class_is_refused_before_its_weights_are_read(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "from_pretrained", read)
    change_json(checkpoint / "config.json", lambda c: c["text_config"].update(hidden_size=256))
    with pytest.raises(WrongCheckpoint, match="declares text hidden_size = 128, but the checkpoint has 256"):
        load(checkpoint)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_configuration_is_refused(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(WrongCheckpoint, match=r"config\.json of qwen2.5-vl-tiny in copy"):
        load(checkpoint)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return Path.touch, (self.sign,)


def test_weights_that_are_only_a_pickle_are_refused_and_never_opened(
    checkpoint: Path, tmp_path: Path
) -> None:
    for file in [*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.index.json")]:
        file.unlink()
    sign = tmp_path / "opened"
    torch.save({"weights": Trap(sign)}, checkpoint / "pytorch_model.bin")
    with pytest.raises(WrongCheckpoint, match=r"only pytorch_model\.bin, which can run code when opened"):
        load(checkpoint)
    assert not sign.exists()


def test_a_pickle_beside_the_safetensors_is_never_opened(checkpoint: Path, tmp_path: Path) -> None:
    sign = tmp_path / "opened"
    torch.save({"weights": Trap(sign)}, checkpoint / "pytorch_model.bin")
    load(checkpoint)
    assert not sign.exists()


def test_a_checkpoint_that_lacks_a_weight_is_refused(checkpoint: Path) -> None:
    edit_weight(checkpoint, "merger.ln_q.weight", lambda weights, name: weights.pop(name))
    with pytest.raises(WrongCheckpoint, match=r"lacks 1 of them, model\.visual\.merger\.ln_q\.weight first"):
        load(checkpoint)


def test_a_weight_of_another_shape_is_refused(checkpoint: Path) -> None:
    edit_weight(checkpoint, "merger.ln_q.weight", lambda weights, name: weights.update({name: torch.ones(7)}))
    with pytest.raises(
        WrongCheckpoint, match=r"ln_q\.weight of qwen2.5-vl-tiny is \[64\] .* copy holds \[7\]"
    ):
        load(checkpoint)


def edit_weight(folder: Path, ending: str, edit: Callable[[dict[str, torch.Tensor], str], Any]) -> None:
    index = folder / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    (name,) = (n for n in files if n.endswith(ending))
    weights = load_file(folder / files[name])
    edit(weights, name)
    save_file(weights, folder / files[name], metadata={"format": "pt"})
    if name not in weights:
        change_json(index, lambda i: i["weight_map"].pop(name))


def test_code_that_comes_with_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    sign = tmp_path / "ran"
    (checkpoint / "modeling_own.py").write_text(f"from pathlib import Path\nPath({str(sign)!r}).touch()\n")
    auto = {"AutoModelForImageTextToText": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
    change_json(checkpoint / "config.json", lambda c: c.update(auto_map=auto))
    tokens = load(checkpoint).extract([frames_of(64, 64)], ["merged"])
    assert not sign.exists()
    assert torch.equal(
        tokens[0]["merged"].values, load_random().extract([frames_of(64, 64)], ["merged"])[0]["merged"].values
    )


@pytest.mark.parametrize(
    ("asked", "blocks", "layers"),
    [
        (["patch"], 0, 0),
        (["vit.2", "patch"], 2, 0),
        (["merged"], 4, 0),
        (["llm.3", "vit.1"], 4, 3),
        (["llm.final"], 4, 4),
    ],
)
def test_only_the_layers_that_are_asked_for_are_loaded_and_give_the_same_bits(
    checkpoint: Path, asked: list[str], blocks: int, layers: int
) -> None:
    whole, some = load(checkpoint), load(checkpoint, points=asked)
    assert len(some.model.model.visual.blocks) == blocks
    assert len(some.model.model.language_model.layers) == layers
    for batch in ([frames_of(64, 64), frames_of(96, 48, seed=1)], [frames_of(64, 64, time=4)]):
        for mine, theirs in zip(whole.extract(batch, asked), some.extract(batch, asked), strict=True):
            for point in asked:
                assert torch.equal(mine[point].values, theirs[point].values)
                assert mine[point].grid == theirs[point].grid


def test_random_weights_do_not_depend_on_what_is_asked_for() -> None:
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    some = FAMILY.load(ref, None, device="cpu", dtype="float32", attention="sdpa", points=["vit.2"])
    mine, whole = some.model.state_dict(), load_random().model.state_dict()
    assert all(torch.equal(mine[k], whole[k]) for k in whole)


def test_a_model_of_some_layers_is_not_saved_as_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WrongCheckpoint, match="declares text num_hidden_layers = 4, but the checkpoint has 2"
    ):
        load(checkpoint, points=["llm.2"]).save(tmp_path / "some")
    assert not (tmp_path / "some").exists()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA on the language model's queries and on the vision tower, its matrices drawn at random."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "qkv"], init_lora_weights=False)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(1)
        get_peft_model(load_random().model, settings).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def merged(adapter: Path) -> Any:
    ref = models.parse_ref(f"qwen2.5-vl-tiny@path:none+adapter:{adapter}")
    return merge_adapter(ref, load_random().model)


def test_an_adapter_is_merged_into_the_weights_it_was_trained_on(adapter: Path) -> None:
    before, after = load_random().model.state_dict(), merged(adapter).state_dict()
    assert before.keys() == after.keys()
    lora = load_file(adapter / "adapter_model.safetensors")
    changed = {k.removesuffix(".weight") for k in before if not torch.equal(after[k], before[k])}
    assert len(changed) == 4 + 4
    for name in changed:
        a, b = (next(v for k, v in lora.items() if f"{name}.lora_{x}." in k) for x in "AB")
        torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + 6 / 2 * (b @ a))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: shutil.rmtree(f), "is no folder"),
        (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (lambda f: change_json(f / "adapter_config.json", lambda c: c.update(peft_type="IA3")), "but lora is IA3"),
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "pickles are never opened"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"torn"), "fetch that file again"),
        (
            lambda f: change_json(f / "adapter_config.json", lambda c: c.update(target_modules=["nothing_here"])),
            "does not fit qwen2.5-vl-tiny",
        ),
        (
            lambda f: save_file(
                {k.replace("layers.1", "layers.9"): v for k, v in load_file(f / "adapter_model.safetensors").items()},
                f / "adapter_model.safetensors",
            ),
            "does not fit qwen2.5-vl-tiny",
        ),
        (lambda f: change_json(f / "adapter_config.json", lambda c: c.update(r=3)), "does not fit qwen2.5-vl-tiny"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_whole_or_of_another_model_is_refused(
    adapter: Path, harm: Callable[[Path], Any], said: str
) -> None:
    harm(adapter)
    with pytest.raises(WrongCheckpoint, match=said):
        merged(adapter)


def test_an_adapter_without_peft_is_refused(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(WrongCheckpoint, match="peft is not installed; install the adapters extra"):
        merged(adapter)
