"""Faithfulness as a language model judges it, beside the support score that needs none.

judge = llama_index_judge(llm)                       # any LLM object of LlamaIndex
evaluate_reader(reader, dataset, hits, texts, unanswerable, judge=judge).judged_faithfulness
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crisp_rag.index.types import Hit
from crisp_rag.pipelines.reading import Answer

Judge = Callable[[Answer, Sequence[Hit]], float]
"""How far an answer is supported by the passages it was read from, in [0, 1]."""


def llama_index_judge(llm: Any) -> Judge:
    """LlamaIndex's FaithfulnessEvaluator: 1 where the model says that the passages support the answer, else 0.

    Args:
        llm: An LLM object of LlamaIndex.

    Raises:
        ImportError: naming the extra to install.
    """
    try:
        from llama_index.core.evaluation import FaithfulnessEvaluator
    except ImportError as error:
        raise ImportError("This judge needs LlamaIndex: pip install 'crisp-rag[llama-index]'") from error
    evaluator = FaithfulnessEvaluator(llm=llm)

    def judge(answer: Answer, hits: Sequence[Hit]) -> float:
        result = evaluator.evaluate(query=answer.question, response=answer.text, contexts=[hit.text for hit in hits])
        return float(bool(result.passing))

    return judge
