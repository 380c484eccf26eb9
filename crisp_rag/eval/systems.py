"""The retrievers that an evaluation compares, all behind one small protocol.

===============  =================================================================================================
bm25             Words: bm25s with k1 0.9 and b 0.4 (Anserini's settings), English stop words, Snowball stems.
dense            One vector a document: all-MiniLM-L6-v2 as its makers use it, mean-pooled, inner product in FAISS.
colbert          All token vectors of answerai-colbert-small-v1, as its makers use it but for their projection: the quality
                 and the size that CRISP starts from.  :mod:`crisp_rag.eval.backbones` says where its weights are.
posthoc          Those vectors clustered by k-means after the fact, 8 a query and 32 a document: no training for it.
ward             Those of documents clustered by Ward's method after the fact to 32, queries whole.
minilm-colbert   All token vectors of all-MiniLM-L6-v2; ``minilm-posthoc`` clusters them after the fact.
crisp            The default encoder, which is what a user gets.
hybrid           bm25 and crisp, their rankings fused (:mod:`crisp_rag.eval.fusion`).
crisp@8x16       Another budget; so too ``posthoc@4x8`` and ``hybrid@8x16``.
crisp:PATH       The encoder saved at PATH; ``crisp:PATH@8x16`` at another budget.
dense:NAME       Any one-vector model that sentence-transformers loads, by name or path.
multi:NAME       Any multi-vector model that sentence-transformers loads, by name or path.
===============  =================================================================================================

Those of many vectors go through :class:`crisp_rag.index.crisp_index.CrispIndex`, so what is measured is what users run.
Own systems: add a factory to :data:`SYSTEMS`, or pass an object; :mod:`crisp_rag.eval.frameworks` makes one of any
LangChain or LlamaIndex retriever.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from crisp_rag.errors import EncoderError, InvalidInputError
from crisp_rag.eval.encodings import EncodingCache

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex
    from crisp_rag.models.encoder import CrispEncoder

CODEC = "5bit"
"""Of all multi-vector systems, at every size: bytes would not compare if small collections were stored wider."""
BATCH = 1024
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class IndexCost:
    """What an index took.

    Args:
        vectors: Vectors stored; 0 for a system of words, None where nobody knows.
        bytes: Bytes of the structures that are searched: vectors, or postings; not the texts.  None where nobody knows.
        encode_seconds: Wall clock from texts to vectors (for bm25: to postings), models loaded already, nothing stored.
            Of vectors that were read from a cache: what it was when they were made.
        build_seconds: Wall clock from vectors to an index that can be searched.
    """

    vectors: int | None
    bytes: int | None
    encode_seconds: float
    build_seconds: float = 0.0


class System(Protocol):
    """A retriever to measure: :meth:`index` once a data set, any number of searches, then :meth:`close`.

    It may have more, which is used where it is there: ``cache``, an :class:`EncodingCache` that is set before indexing;
    ``fingerprint()``, equal for systems that give equal results, without which the name stands for the system when a
    run goes on; ``encoder()``, the multi-vector encoder that explains its scores and serves readers.
    """

    name: str

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        """Forget what was indexed before and index these; ``on_progress`` gets (documents done, of how many)."""

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """(id, score) pairs for each query, best first, at most k."""

    def close(self) -> None:
        """Forget what was indexed and release files; the system can be used again afterwards."""


class BM25System:
    """Lexical baseline over bm25s.  A document that shares no word with the query is no result."""

    name = "bm25"

    def __init__(self) -> None:
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            # Never without stems: results would then depend on what happens to be installed.
            raise ImportError("The bm25 system needs bm25s and PyStemmer: pip install 'crisp-rag[eval]'") from error
        self._bm25s = bm25s
        self._stemmer = Stemmer.Stemmer("english")
        self._retriever: Any = None
        self._ids: list[str] = []

    def fingerprint(self) -> str:
        return f"bm25s {self._bm25s.__version__}, k1 0.9, b 0.4, English"

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        self.close()
        started = time.perf_counter()
        tokens = self._tokens(texts)
        if any(tokens):  # bm25s cannot index a corpus without a single word
            self._retriever = self._bm25s.BM25(k1=0.9, b=0.4)
            self._retriever.index(tokens, show_progress=False)
        seconds = time.perf_counter() - started
        self._ids = list(ids)
        if on_progress:
            on_progress(len(texts), len(texts))
        arrays = self._retriever.scores.values() if self._retriever is not None else ()
        size = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        return IndexCost(vectors=0, bytes=size, encode_seconds=seconds)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        if self._retriever is None or not queries:
            return [[] for _ in queries]
        known = self._retriever.vocab_dict
        return [self._search([token for token in query if token in known], k) for query in self._tokens(queries)]

    def close(self) -> None:
        self._retriever, self._ids = None, []

    def _search(self, tokens: list[str], k: int) -> list[tuple[str, float]]:
        if not tokens:  # bm25s refuses a query of which it knows no word
            return []
        rows, scores = self._retriever.retrieve([tokens], k=min(k, len(self._ids)), show_progress=False)
        return [(self._ids[row], value) for row, value in zip(rows[0].tolist(), scores[0].tolist()) if value > 0]

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return self._bm25s.tokenize(
            list(texts), stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )


class DenseSystem:
    """One-vector baseline, exact search in FAISS: all-MiniLM-L6-v2 as published, or any other.

    Args:
        name: How the results call it.
        load: Makes the SentenceTransformer; called once, when it is first needed.  A model whose similarity is the dot
            product is searched by it, every other one by cosine.
    """

    def __init__(self, name: str = "dense", load: Callable[[], Any] | None = None) -> None:
        self.name = name
        self.cache = EncodingCache(None)
        self._load = load or _load_dense
        self._model: Any = None
        self._fingerprint = ""
        self._index: Any = None
        self._ids: list[str] = []

    def fingerprint(self) -> str:
        from crisp_rag.models.fingerprint import fingerprint

        if not self._fingerprint:
            self._fingerprint = fingerprint(self._loaded())
        return self._fingerprint

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        import faiss

        self.close()
        fingerprint = self.fingerprint()
        seconds = build_seconds = 0.0
        for first in range(0, len(texts), BATCH):
            part = texts[first : first + BATCH]
            encoded = self.cache.encode(fingerprint, part, self._encode_documents, np.float32)
            seconds += encoded.seconds
            started = time.perf_counter()
            vectors = np.concatenate(encoded.vectors)
            if self._index is None:
                self._index = faiss.IndexFlatIP(vectors.shape[1])
            self._index.add(vectors)
            build_seconds += time.perf_counter() - started
            if on_progress:
                on_progress(first + len(part), len(texts))
        self._ids = list(ids)
        size = self._index.ntotal * self._index.d * 4 if self._index is not None else 0
        return IndexCost(len(self._ids), size, seconds, build_seconds)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        if self._index is None or not queries:
            return [[] for _ in queries]
        scores, rows = self._index.search(self._encode_queries(list(queries)), min(k, len(self._ids)))
        return [
            [(self._ids[row], value) for row, value in zip(found.tolist(), values.tolist())]
            for found, values in zip(rows, scores)
        ]

    def close(self) -> None:
        self._index, self._ids = None, []

    def _encode_documents(self, texts: list[str]) -> np.ndarray:
        return self._encode(self._loaded().encode_document, texts)

    def _encode_queries(self, texts: list[str]) -> np.ndarray:
        return self._encode(self._loaded().encode_query, texts)

    def _encode(self, encode: Callable[..., Any], texts: list[str]) -> np.ndarray:
        """(len(texts), dim) float32, of unit length unless the model's similarity is the dot product."""
        unit = self._loaded().similarity_fn_name != "dot"
        vectors = encode(texts, normalize_embeddings=unit, show_progress_bar=False, convert_to_numpy=True)
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _loaded(self) -> Any:
        if self._model is None:
            self._model = self._load()
        return self._model


class MultiVectorSystem:
    """Any multi-vector encoder over a CrispIndex in a temporary folder.

    Args:
        name: How the results call it.
        load: Makes the encoder; called once, when it is first needed.
    """

    def __init__(self, name: str, load: Callable[[], CrispEncoder]) -> None:
        self.name = name
        self.cache = EncodingCache(None)
        self._load = load
        self._encoder: CrispEncoder | None = None
        self._folder: Path | None = None
        self._index: CrispIndex | None = None

    def encoder(self) -> CrispEncoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def fingerprint(self) -> str:
        return encoder_fingerprint(self.encoder())

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        from crisp_rag.index.crisp_index import CrispIndex
        from crisp_rag.index.types import Passage

        self.close()
        encoder, fingerprint = self.encoder(), self.fingerprint()
        self._folder = Path(tempfile.mkdtemp(prefix="crisp-rag-eval-"))
        self._index = CrispIndex.create(self._folder / "index", encoder, codec=CODEC)
        seconds = build_seconds = 0.0
        for first in range(0, len(texts), BATCH):
            part = list(texts[first : first + BATCH])
            passages = [Passage(id_, text) for id_, text in zip(ids[first : first + BATCH], part)]
            encoded = self.cache.encode(fingerprint, part, encoder.encode_document)
            seconds += encoded.seconds
            started = time.perf_counter()
            self._index.add(passages, vectors=encoded.vectors)
            build_seconds += time.perf_counter() - started
            if on_progress:
                on_progress(first + len(part), len(texts))
        stats = self._index.stats()
        return IndexCost(stats.vectors, stats.bytes_vectors, seconds, build_seconds)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        if self._index is None:
            return [[] for _ in queries]
        return [[(hit.id, hit.score) for hit in hits] for hits in self._index.search_batch(list(queries), k)]

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._index, self._folder = None, None


def encoder_fingerprint(encoder: Any) -> str:
    """The encoder's own, and what runs its backbone: vectors in int8 are not to the last digit those in float32."""
    openvino = "with" if find_spec("openvino") is not None else "without"
    return f"{encoder.fingerprint}, backend {getattr(encoder, 'backend', 'its own')}, {openvino} openvino"


def _load_dense(name: str | None = None) -> Any:
    from sentence_transformers import SentenceTransformer

    from crisp_rag.models.encoder import _quiet_loading, default_backbone

    try:
        with _quiet_loading():
            return SentenceTransformer(name or str(default_backbone()))
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"The one-vector model {name!r} cannot be loaded: {error}") from error


def _posthoc(budget: str = "8x32") -> CrispEncoder:
    from crisp_rag.eval.backbones import late_interaction_backbone

    return late_interaction_backbone(budget, query_centroid="sum")


def _colbert() -> CrispEncoder:
    from crisp_rag.eval.backbones import late_interaction_backbone

    return late_interaction_backbone()


def _ward() -> CrispEncoder:
    from crisp_rag.eval.ward import WardPooling

    return _colbert().pooled_by(WardPooling(32))


def _minilm(pooling: str) -> CrispEncoder:
    from crisp_rag.models import build_encoder

    return build_encoder(pooling=pooling)


def _crisp(path: str | None = None, budget: str | None = None) -> CrispEncoder:
    from crisp_rag.models import load_encoder

    return load_encoder(path, budget=budget)


def _hybrid(name: str = "hybrid", budget: str | None = None) -> System:
    from crisp_rag.eval.fusion import FusedSystem

    return FusedSystem(name, [BM25System(), MultiVectorSystem("crisp", lambda: _crisp(budget=budget))])


SYSTEMS: dict[str, Callable[[], System]] = {
    "bm25": BM25System,
    "dense": DenseSystem,
    "colbert": lambda: MultiVectorSystem("colbert", _colbert),
    "posthoc": lambda: MultiVectorSystem("posthoc", _posthoc),
    "ward": lambda: MultiVectorSystem("ward", _ward),
    "minilm-colbert": lambda: MultiVectorSystem("minilm-colbert", lambda: _minilm("none")),
    "minilm-posthoc": lambda: MultiVectorSystem("minilm-posthoc", lambda: _minilm("8x32")),
    "crisp": lambda: MultiVectorSystem("crisp", _crisp),
    "hybrid": _hybrid,
}
_AT_BUDGETS: dict[str, Callable[[str, str], System]] = {
    "posthoc": lambda name, budget: MultiVectorSystem(name, lambda: _posthoc(budget)),
    "crisp": lambda name, budget: MultiVectorSystem(name, lambda: _crisp(budget=budget)),
    "hybrid": _hybrid,
}
_OF_MODELS: dict[str, Callable[[str, str], System]] = {
    "crisp": lambda name, model: MultiVectorSystem(name, lambda: _crisp(model)),
    "multi": lambda name, model: MultiVectorSystem(name, lambda: _crisp(model)),
    "dense": lambda name, model: DenseSystem(name, lambda: _load_dense(model)),
}


def create_system(name: str) -> System:
    """The system of that name; its models load when they are first needed.

    Raises:
        InvalidInputError: if there is none; the message lists those there are.
        ImportError: if it needs a package that is missing; the message names the line that installs it.
    """
    if name in SYSTEMS:
        return SYSTEMS[name]()
    kind, _, model = name.partition(":")
    if kind in _OF_MODELS and model:
        return _OF_MODELS[kind](name, model)
    kind, _, budget = name.partition("@")
    if kind in _AT_BUDGETS and budget:
        _check_budget(name, budget)
        return _AT_BUDGETS[kind](name, budget)
    raise InvalidInputError(
        f"Unknown system {name!r}: use {', '.join(SYSTEMS)}, or crisp:PATH for a saved encoder, crisp@8x16 (posthoc@, "
        "hybrid@) for another budget, dense:NAME and multi:NAME for a sentence-transformers model."
    )


def _check_budget(name: str, budget: str) -> None:
    from crisp_rag.models.pooling import parse_pooling

    try:
        parse_pooling(budget)
    except ValueError as error:
        raise InvalidInputError(f"The system {name!r} has no such budget. {error}") from error
