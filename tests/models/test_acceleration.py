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
