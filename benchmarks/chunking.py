"""What splitters are worth: recall, precision and IoU of what five chunks hold, on Chroma's chunking evaluation.

python benchmarks/chunking.py DATA [--sizes 200]      # DATA holds chroma-chunking; writes results/chunking.json

The five raw files are cut by each splitter to the same number of tokens, as the encoder's tokenizer counts them, without
overlap; the default encoder embeds every chunk, and each of the 472 questions gets the five best chunks of all files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from crisp_rag.eval.chunking import Span, chunking_scores, mean_scores
from crisp_rag.models import load_encoder
from crisp_rag.models.encoder import CrispEncoder
from crisp_rag.models.scoring import StackedVectors
from crisp_rag.pipelines.loading import LoadedDocument
from crisp_rag.pipelines.splitting import PassageSplitter

RESULTS = Path(__file__).resolve().parent / "results" / "chunking.json"
RETRIEVED = 5
Cut = Callable[[str, str], list[Span]]


def splitters(encoder: CrispEncoder, size: int) -> Iterator[tuple[str, Cut]]:
    """(name, function from a file's name and text to spans)."""
    tokenizer = encoder.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    own = PassageSplitter(tokenizer, size)

    def crisp(name: str, text: str) -> list[Span]:
        passages = own.split(LoadedDocument(f"/{name}.md", "", text, "markdown", "d"))
        return [(passage.metadata["start"], passage.metadata["end"]) for passage in passages]

    yield "crisp-rag", crisp

    from langchain_text_splitters import RecursiveCharacterTextSplitter

    recursive = RecursiveCharacterTextSplitter(
        chunk_size=size, chunk_overlap=0, length_function=count, add_start_index=True,
        separators=["\n\n", "\n", ".", "?", "!", " ", ""],
    )  # fmt: skip
    yield "langchain RecursiveCharacterTextSplitter", lambda name, text: [
        (document.metadata["start_index"], document.metadata["start_index"] + len(document.page_content))
        for document in recursive.create_documents([text])
    ]

    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    for label, kind in (("TextSplitter", TextSplitter), ("MarkdownSplitter", MarkdownSplitter)):
        cutter = kind.from_callback(count, size)
        yield f"semantic-text-splitter {label}", lambda name, text, cutter=cutter: [
            (start, start + len(piece)) for start, piece in cutter.chunk_indices(text)
        ]

    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import Document

    sentences = SentenceSplitter(
        chunk_size=size, chunk_overlap=0,
        tokenizer=lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
    )  # fmt: skip
    yield "llama-index SentenceSplitter", lambda name, text: [
        (node.start_char_idx, node.end_char_idx) for node in sentences.get_nodes_from_documents([Document(text=text)])
    ]


def measure(
    encoder: CrispEncoder, cut: Cut, texts: dict[str, str], questions: list[dict[str, Any]], vectors: list
) -> dict[str, Any]:
    started = time.perf_counter()
    chunks = [(name, *span) for name, text in texts.items() for span in cut(name, text)]
    seconds = time.perf_counter() - started
    chunks = [chunk for chunk in chunks if texts[chunk[0]][chunk[1] : chunk[2]].strip()]
    stacked = StackedVectors(encoder.encode_document([texts[name][start:end] for name, start, end in chunks]))
    scores = []
    for question, query in zip(questions, vectors):
        best = [chunks[row] for row in np.argsort(-stacked.scores(query), kind="stable")[:RETRIEVED]]
        name = question["metadata"]["corpus"]
        references = [(each["start_index"], each["end_index"]) for each in question["metadata"]["references"]]
        scores.append(
            chunking_scores(
                references, [(start, end) for other, start, end in best if other == name],
                elsewhere=sum(end - start for other, start, end in best if other != name),
            )
        )  # fmt: skip
    lengths = encoder.count_tokens([texts[name][start:end] for name, start, end in chunks])
    return {
        **asdict(mean_scores(scores)),
        "chunks": len(chunks),
        "tokens_a_chunk": float(np.mean(lengths)),
        "split_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", default="200")
    arguments = parser.parse_args()
    folder = arguments.data / "chroma-chunking"
    questions = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "raw").glob("*.md"))}
    for question in questions:
        for each in question["metadata"]["references"]:
            text = texts[question["metadata"]["corpus"]]
            assert text[each["start_index"] : each["end_index"]] == each["content"], question["_id"]
    encoder = load_encoder()
    vectors = encoder.encode_query([question["text"] for question in questions])
    results: dict[str, Any] = {"encoder": encoder.name, "questions": len(questions), "retrieved": RETRIEVED, "sizes": {}}
    for size in map(int, arguments.sizes.split(",")):
        table = Table("splitter", "recall", "precision", "IoU", "chunks", "tokens", "split s", title=f"{size} tokens")
        rows = results["sizes"][str(size)] = {}
        for name, cut in splitters(encoder, size):
            row = rows[name] = measure(encoder, cut, texts, questions, vectors)
            print(name, row, flush=True)
            table.add_row(
                name, *(f"{row[key]:.3f}" for key in ("recall", "precision", "iou")), str(row["chunks"]),
                f"{row['tokens_a_chunk']:.0f}", f"{row['split_seconds']:.1f}",
            )  # fmt: skip
        Console().print(table)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
