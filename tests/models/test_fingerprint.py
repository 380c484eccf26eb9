"""A fingerprint covers all that decides vectors, and nothing that an upgrade changes; what was made before keeps opening."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import EncoderError, EncoderMismatchError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.models import build_encoder, load_encoder
from crisp_rag.models.fingerprint import former


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved encoder."""
    folder = tmp_path_factory.mktemp("encoders") / "plain"
    build_encoder(pooling="8x32", name="plain").save(folder)
    return folder


def edited(file: Path, change: Callable[[Any], Any]) -> None:
    said = json.loads(file.read_text(encoding="utf-8"))
    change(said)
    file.write_text(json.dumps(said), encoding="utf-8")


def the(folder: Path, name: str) -> Path:
    return next(folder.rglob(name))


def exchange_two_words(said: Any) -> None:
    vocabulary = said["model"]["vocab"]
    vocabulary["house"], vocabulary["water"] = vocabulary["water"], vocabulary["house"]


CHANGES = {
    "heads": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(num_attention_heads=6)),
    "activation": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(hidden_act="relu")),
    "epsilon": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(layer_norm_eps=1e-3)),
    "vocabulary": lambda folder: edited(the(folder, "tokenizer.json"), exchange_two_words),
    "case": lambda folder: (
        edited(the(folder, "tokenizer.json"), lambda said: said["normalizer"].update(lowercase=False)),
        edited(the(folder, "tokenizer_config.json"), lambda said: said.update(do_lower_case=False)),
    ),
}
HARMLESS = {
    "nothing": lambda folder: None,
    "version": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(transformers_version="99.0")),
    "labels": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(id2label={"0": "x"})),
    "order": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(model_type=said.pop("model_type"))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_gives_other_vectors_has_another_fingerprint(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / "changed")
    CHANGES[name](tmp_path / "changed")
    plain, changed = load_encoder(saved, device="cpu"), load_encoder(tmp_path / "changed", device="cpu")
    text = "The house by the Water"
    ours, theirs = plain.encode_document(text), changed.encode_document(text)
    assert ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-4), "the change changes vectors"
    assert plain.fingerprint != changed.fingerprint
    with CrispIndex.create(tmp_path / "index", plain) as index:
        index.add([Passage("a", text)])
    with pytest.raises(EncoderMismatchError):
        CrispIndex.open(tmp_path / "index", changed)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_vector_changes_no_fingerprint(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / "changed")
    HARMLESS[name](tmp_path / "changed")
    assert load_encoder(tmp_path / "changed", device="cpu").fingerprint == load_encoder(saved, device="cpu").fingerprint


def test_an_index_with_the_former_fingerprint_keeps_opening(saved: Path, tmp_path: Path) -> None:
    encoder = load_encoder(saved, device="cpu")
    assert encoder.former_fingerprints == (former(encoder.model),) != (encoder.fingerprint,)
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add([Passage("a", "oak")])
        with index._store.transaction(write=True):
            index._store.set_meta({"fingerprint": former(encoder.model)})
    for given in (encoder, None):
        with CrispIndex.open(tmp_path / "index", given) as index:
            assert index.search("oak")[0].id == "a"
    with pytest.raises(EncoderMismatchError):
        CrispIndex.open(tmp_path / "index", encoder.with_pooling("4x8"))


DAMAGE = {
    "cut weights": lambda folder: cut(the(folder, "model.safetensors")),
    "no weights": lambda folder: the(folder, "model.safetensors").unlink(),
    "config is no JSON": lambda folder: the(folder, "config.json").write_text("{"),
    "config is a list": lambda folder: the(folder, "config.json").write_text("[]"),
    "modules are no JSON": lambda folder: the(folder, "modules.json").write_text("]"),
    "modules are a dict": lambda folder: the(folder, "modules.json").write_text('{"a": 1}'),
    "modules lack a type": lambda folder: edited(the(folder, "modules.json"), lambda said: said[0].pop("type")),
    "tokenizer is no JSON": lambda folder: the(folder, "tokenizer.json").write_text("x"),
    "other size of weights": lambda folder: edited(the(folder, "config.json"), lambda said: said.update(hidden_size=192)),
    "name is no JSON": lambda folder: the(folder, "crisp_rag.json").write_text("x"),
    "name is a list": lambda folder: the(folder, "crisp_rag.json").write_text("[]"),
    "name is missing": lambda folder: the(folder, "crisp_rag.json").write_text("{}"),
}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_encoder_folder_is_an_error_that_names_it(saved: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(saved, folder)
    DAMAGE[name](folder)
    with pytest.raises(EncoderError, match="damaged") as caught:
        load_encoder(folder, device="cpu")
    assert "\n" not in str(caught.value)
