"""CrispRerank: MaxSim over what any LlamaIndex retriever found."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from crisp_rag.errors import InvalidInputError
from crisp_rag.retrievers.reranking import Reranker

_dispatcher = get_dispatcher(__name__)


class CrispRerank(BaseNodePostprocessor):
    """Sorts nodes by MaxSim of their text with the query and keeps the best.

    A node's score becomes its MaxSim, which :class:`CrispRetriever` gives too, up to the rounding of what an index
    stores, for passages without a context.  A node without text comes last,
    with 0.  The nodes that come in are left as they are.

    Args:
        encoder: What turns texts into vectors, such as ``index.encoder``; None for the default one, loaded when it
            is first needed.
        top_n: How many nodes at most, at least 1; None for all.
        keep_retrieval_score: Put the score that a node came with into its metadata, as ``retrieval_score``.
        callback_manager: Gets the rerank events.

    Raises:
        pydantic.ValidationError: (a ValueError) for ``top_n`` below 1.
    """

    encoder: Any = Field(default=None, exclude=True, description="What turns texts into vectors.")
    top_n: int | None = Field(default=None, ge=1, description="How many nodes at most.")
    keep_retrieval_score: bool = Field(default=False, description="Keep the old score in the metadata.")

    _reranker: Reranker = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make what ranks."""
        super().model_post_init(context)
        self._reranker = Reranker(self.encoder)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex uses."""
        return "CrispRerank"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError("Reranking needs a query: pass query_str or query_bundle.")
        if not nodes:
            return []
        name = self._reranker.encoder.name
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n or len(nodes), model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(MetadataMode.NONE) for node in nodes]
            ranked = self._reranker.rank(query_bundle.query_str, texts)[: self.top_n]
            best = [self._rescored(nodes[number], score) for number, score, _ in ranked]
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _rescored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node = found.node
        if self.keep_retrieval_score:
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": found.score}})
        return NodeWithScore(node=node, score=score)
