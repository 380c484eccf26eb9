"""The backbone in OpenVINO: the same vectors up to rounding, from any thread, and PyTorch where it cannot run."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import CrispError, EncoderError
from crisp_rag.models import acceleration, build_encoder, load_encoder
from crisp_rag.models.encoder import MANY_DOCUMENTS

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def fast() -> Any:
    return build_encoder(pooling="none", device="cpu", backend="openvino")


def test_token_vectors_agree_with_float32(fast: Any, texts: list[str]) -> None:
    exact = build_encoder(pooling="none", device="cpu", backend="torch")
    cosines = [(a * b).sum(axis=1) for a, b in zip(fast.encode_document(texts), exact.encode_document(texts), strict=True)]
    assert np.mean([each.mean() for each in cosines]) > 0.998
    assert min(each.min() for each in cosines) > 0.97


def test_texts_of_any_length_and_order_come_back_in_theirs(fast: Any, texts: list[str]) -> None:
    mixed = [*texts[:5], "Short.", texts[6] * 3, "a"]
    together = fast.encode_document(mixed)
    assert [len(array) for array in together] == [min(count, 256) for count in fast.count_tokens(mixed)]
    assert (together[5] * fast.encode_document("Short.")).sum(axis=1).min() > 0.98


def test_batches_hold_texts_of_as_many_tokens_and_what_the_tokenizer_makes_of_them(fast: Any, texts: list[str]) -> None:
    long_words = ["antidisestablishmentarianism " * 9, "on " * 40]  # fewer letters and more tokens, and the reverse
    mixed = [*texts[:9], *long_words, "a", "word " * 400]
    pipeline = fast._model_for(1000)
    seen: list[dict[str, Any]] = []

    def record(features: dict[str, Any], **_: Any) -> dict[str, Any]:
        seen.append({name: features[name] for name in ("input_ids", "attention_mask")})
        return {**features, "token_embeddings": features["attention_mask"].unsqueeze(-1).float()}

    pipeline[0].forward, plain = record, pipeline[0].forward
    try:
        pipeline.encode_document(mixed, batch_size=4)
        known = len(seen)
        pipeline.encode_document(mixed, batch_size=4, prompt="passage: ")
    finally:
        pipeline[0].forward = plain
    lengths = [int(batch["attention_mask"].sum()) for batch in seen[:known]]
    widths = [batch["input_ids"].shape[1] for batch in seen[:known]]
    assert sum(lengths) == sum(min(count, 256) for count in fast.count_tokens(mixed))
    tokens = sorted((min(count, 256) for count in fast.count_tokens(mixed)), reverse=True)
    assert widths == tokens[::4], "sorted by tokens, a batch is as wide as the first of its texts"
    reference = fast.model.preprocess(["word " * 400], task="document")["input_ids"][0]
    assert any((row == reference).all() for row in seen[0]["input_ids"])
    assert len(seen) == 2 * known
    assert sum(int(batch["attention_mask"].sum()) for batch in seen[known:]) > sum(lengths), "the prompt is read too"


def test_several_threads_may_encode_at_once(fast: Any, texts: list[str]) -> None:
    alone = [fast.encode_document(text) for text in texts[:12]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fast.encode_document, texts[:12]))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_documents_take_the_fast_way_and_few_or_queries_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(acceleration, "accelerate", lambda model: asked.append(model))
    encoder = load_encoder(device="cpu")
    encoder.encode_document(["a lamp"] * (MANY_DOCUMENTS - 1))
    encoder.encode_query(["a lamp"] * MANY_DOCUMENTS)
    assert not asked
    encoder.encode_document(["a lamp"] * MANY_DOCUMENTS)
    encoder.encode_document(["a lamp"] * MANY_DOCUMENTS)
    assert len(asked) == 1, "a backbone that does not convert is not tried again"


def test_where_it_cannot_run_the_openvino_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_openvino", lambda: None)
    with pytest.raises(EncoderError, match="fast"):
        load_encoder(device="cpu", backend="openvino").encode_document("a lamp")
    assert len(load_encoder(device="cpu").encode_document(["a lamp"] * MANY_DOCUMENTS)) == MANY_DOCUMENTS


def test_a_backend_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CrispError, match="torch or openvino"):
        load_encoder(device="cpu", backend="tensorflow")  # type: ignore[arg-type]


def test_importing_openvino_here_reports_to_nobody() -> None:
    code = (
        "from crisp_rag.models.acceleration import _openvino; _openvino();"
        "from openvino.tools.ovc.telemetry_utils import tm; print(tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
