"""What a model is: cards and references, fingerprints, and checkpoints found or not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foresight import models
from foresight.models.checkpoint import MissingCheckpoint, find_checkpoint
from foresight.models.fingerprint import fingerprint, random_fingerprint, snapshot_sha256


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary checkpoint folder of the tiny VLM."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(folder)
    return folder


def copied(checkpoint: Path, place: Path) -> Path:
    return Path(shutil.copytree(checkpoint, place / "copy"))


def test_equal_weights_in_another_folder_are_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    assert fingerprint(copied(checkpoint, tmp_path)) == fingerprint(checkpoint)


def test_renamed_weight_files_and_cosmetic_settings_are_the_same_model(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = copied(checkpoint, tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"transformers_version": "9.9", "_name_or_path": "x"})
    )
    assert fingerprint(folder) == fingerprint(checkpoint)


def test_one_changed_tensor_is_another_model(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    before, after = fingerprint(checkpoint), fingerprint(folder)
    assert before["weights"] != after["weights"]
    assert before["config"] == after["config"]


def test_one_changed_setting_of_the_preprocessing_is_another_model(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    before, after = fingerprint(checkpoint), fingerprint(folder)
    assert before["processor"] != after["processor"]
    assert before["weights"] == after["weights"]


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match="never loaded here"):
        fingerprint(tmp_path)


def test_a_hub_snapshot_is_known_by_the_names_of_its_blobs(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"not hashed again")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert snapshot_sha256(tmp_path / "model.safetensors") == "ab" * 32


def test_random_weights_have_a_fingerprint_without_being_drawn() -> None:
    card = models.get("qwen2.5-vl-tiny")
    assert random_fingerprint(card.config, 0) == random_fingerprint(dict(card.config), 0)
    assert random_fingerprint(card.config, 0)["weights"] != random_fingerprint(card.config, 1)["weights"]


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    ref = models.parse_ref("ltx-video-tiny@random5")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second = (
        models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa")
        for _ in range(2)
    )
    assert torch.equal(torch.rand(1), expected)
    pairs = zip(first.vae.state_dict().values(), second.vae.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_local_folder_is_loaded_like_any_checkpoint(checkpoint: Path) -> None:
    ref = models.parse_ref(f"qwen2.5-vl-tiny@path:{checkpoint}")
    folder = find_checkpoint(ref, download=False)
    loaded = models.family(ref.card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")
    twin = models.parse_ref("qwen2.5-vl-tiny@random3")
    made = models.family(ref.card).load(twin, None, device="cpu", dtype="float32", attention="sdpa")
    a, b = loaded.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_a_hub_model_that_is_not_here_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for download in (False, True):
        with pytest.raises(
            MissingCheckpoint, match="hf download Lightricks/LTX-Video --revision 8984fa25007f"
        ) as info:
            find_checkpoint(models.parse_ref("ltx-video-vae"), download=download)
        assert "--include 'vae/*'" in str(info.value)
        assert "ltx-video-vae@path:DIR" in str(info.value)


def test_a_hub_snapshot_that_is_here_is_found_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    ref = models.parse_ref("ltx-video-vae")
    snapshot = tmp_path / "models--Lightricks--LTX-Video" / "snapshots" / ref.value / "vae"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert find_checkpoint(ref, download=False) == snapshot


@pytest.mark.parametrize(
    ("text", "kind", "value", "short"),
    [
        ("qwen2.5-vl-tiny", "seed", "0", "qwen2.5-vl-tiny"),
        ("qwen2.5-vl-tiny@seed1", "seed", "1", "qwen2.5-vl-tiny@seed1"),
        ("qwen2.5-vl-tiny@random2", "random", "2", "qwen2.5-vl-tiny@random2"),
        ("qwen2.5-vl-7b@" + "a" * 40, "hub", "a" * 40, "qwen2.5-vl-7b@aaaaaaa"),
        ("qwen2.5-vl-7b@path:some/where", "path", "some/where", "qwen2.5-vl-7b@where"),
    ],
)
def test_a_model_is_named_by_card_and_revision(text: str, kind: str, value: str, short: str) -> None:
    ref = models.parse_ref(text)
    assert (ref.kind, ref.value, ref.short) == (kind, value, short)
    assert models.parse_ref(str(ref)) == ref


def test_every_real_card_is_loadable_by_name_where_its_commit_is_known_and_asks_for_one_where_not() -> None:
    for card in models.cards().values():
        if not card.tiny:
            if card.revision:
                assert models.parse_ref(card.name).value == card.revision
            else:
                with pytest.raises(ValueError, match="pin it"):
                    models.parse_ref(card.name)
                with pytest.raises(ValueError, match=f"no commit of {card.name} is known"):
                    models.parse_ref(f"{card.name}@random0")
            assert card.licence
            assert card.memory_gib > 0
        names = [p.name for p in models.points(card)]
        assert len(names) == len(set(names))
        assert set(card.default_points) <= set(names)


def test_points_are_asked_for_by_name_or_path_and_come_in_model_order() -> None:
    card = models.get("qwen2.5-vl-tiny")
    asked = ["llm.2", "model.visual.blocks.0", "vit.1", "patch"]
    found = models.resolve_points(models.points(card), asked, model=card.name)
    assert [p.name for p in found] == ["patch", "vit.1", "llm.2"]


def test_a_twin_with_random_weights_knows_whose_architecture_it_has() -> None:
    tiny, real = models.parse_ref("qwen2.5-vl-tiny"), models.parse_ref("qwen2.5-vl-3b")
    assert tiny.random_twin().base is None
    assert real.random_twin().base == real
    assert models.parse_ref("qwen2.5-vl-3b@random0").base == real


def test_two_cards_may_not_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from foresight.models import ltx_video

    card = ltx_video.CARDS[0]
    monkeypatch.setattr(ltx_video, "CARDS", (card, dataclasses.replace(card)))
    models.cards.cache_clear()
    try:
        with pytest.raises(ValueError, match="two model cards"):
            models.cards()
    finally:
        monkeypatch.undo()
        models.cards.cache_clear()
