"""From a question to an answer with its sources.

    answer = ask(index, "how long do refunds take?")
    print(answer.text if answer.answered else "The documents do not say.")
    for source in answer.sources:
        print(source.path, source.start, source.end, source.quote)

    ask(index, question, hybrid=True, rerank=True)                          # other ways to find the passages
    ask(index, question, reader=LLMReader("openai:gpt-5-mini", index.encoder))   # a language model writes

The default reader needs no language model: it scores the sentences of the best passages with the encoder that found the
passages, and quotes the best ones word for word.  Either answers only where the evidence clears a threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crisp_rag.index.types import Where
from crisp_rag.pipelines.extractive import ExtractiveReader
from crisp_rag.pipelines.reading import NOT_FOUND, Answer, Reader, Source, Statement
from crisp_rag.pipelines.retrieval import POOL, Ranker, retrieve

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex

__all__ = ["DEFAULT_K", "NOT_FOUND", "Answer", "ExtractiveReader", "Reader", "Source", "Statement", "ask"]

DEFAULT_K = 5


def ask(
    index: CrispIndex,
    question: str,
    *,
    k: int = DEFAULT_K,
    where: Where | None = None,
    reader: Reader | None = None,
    hybrid: bool = False,
    rerank: bool | Ranker | Any = False,
    pool: int = POOL,
) -> Answer:
    """Search the index and read the answer out of what it finds.

    Args:
        index: Where to look.
        question: Plain words; blank ones raise InvalidInputError.
        k: Passages to read.
        where: A filter on their metadata.
        reader: Extractive by default.
        hybrid, rerank, pool: How passages are found, see :func:`crisp_rag.pipelines.retrieval.retrieve`.
    """
    reader = reader or ExtractiveReader(index.encoder)
    vectors = getattr(reader, "vectors", None)
    hits = retrieve(index, question, k, where, hybrid=hybrid, rerank=rerank, pool=pool, vectors=vectors)
    return reader.read(question, hits)
