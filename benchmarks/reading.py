"""How well the extractive reader reads SQuAD 2.0's development questions, and knows which of them have no answer.

python benchmarks/reading.py DATA --fit [--cache FOLDER]     # fits the calibration
python benchmarks/reading.py DATA [--cache FOLDER] [--limit 2000]     # measures, on so many questions drawn at random

DATA holds squad2-dev and squad-train.  ``--fit`` writes crisp_rag/pipelines/calibration.json: it is fitted on questions
of squad-train, on those that benchmarks/unanswerable.py makes of them, and on questions whose passage is taken away;
squad2-dev is only measured.  Token vectors go to FOLDER, so that a second run encodes nothing.  Writes
benchmarks/results/reading.json.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading_model import KEPT_BACK, article_of, kept_back, maker_for
from unanswerable import OF_QUESTIONS, SHARES

from crisp_rag.eval.answers import auroc, contains, evaluate_reader
from crisp_rag.eval.datasets import Dataset, load_beir
from crisp_rag.eval.systems import create_system
from crisp_rag.index.types import Hit
from crisp_rag.jsonlines import numbered_lines
from crisp_rag.models import load_encoder
from crisp_rag.models.encoder import CrispEncoder
from crisp_rag.pipelines.abstention import SHIPPED, best_threshold, fit, risk_curve
from crisp_rag.pipelines.extractive import ExtractiveReader
from crisp_rag.pipelines.features import NAMES, READ
from crisp_rag.pipelines.packing import pack

RESULTS = Path(__file__).resolve().parent / "results" / "reading.json"
K = 5
OTHER_WORDS = 0.3
"""Share of the questions that are also asked with a synonym."""
REMOVED = 0.5
REMOVED_WEIGHT = 2.5
"""What questions without their passage count in all, made ones counting 1: most that is asked in vain is not there."""
USED = (
    "match", "worst_word", "missing_names_near", "negated_question", "negated_question_only", "negated_sentence_only",
    "opposite", *READ,
)  # fmt: skip
"""The figures of the shipped calibration.  More of them gain a point on squad2-dev and lose on questions in other words."""
ANSWERED = 0.92
"""Share of the training questions that the shipped threshold answers."""
KEEP, SUPPORT = 0.93, 0.68
"""Of crisp-small, which scores texts closer together than crisp-minilm: where summaries of scitldr's development set score
with their own and with other abstracts, .68 and .93 are where .6 and .9 were."""
Found = dict[str, list[tuple[str, float, float]]]


class CachedTokens:
    """An encoder's token vectors, kept in a folder by text."""

    def __init__(self, encoder: CrispEncoder, folder: Path | None) -> None:
        self.inner = encoder.with_pooling("none")
        self.folder = folder
        self.known: dict[str, dict[str, np.ndarray]] = {task: self._load(task) for task in ("query", "document")}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode_query(self, texts: Sequence[str], **_: Any) -> list[np.ndarray]:
        return self._encode(texts, "query", self.inner.encode_query)

    def encode_document(self, texts: Sequence[str], **_: Any) -> list[np.ndarray]:
        return self._encode(texts, "document", self.inner.encode_document)

    def _encode(self, texts: Sequence[str], task: str, encode: Any) -> list[np.ndarray]:
        known = self.known[task]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for first in range(0, len(new), 1024):
            part = new[first : first + 1024]
            vectors = [each.astype(np.float16) for each in encode(part)]
            known.update(zip(part, vectors))
            self._append(task, part, vectors)
        return [known[text].astype(np.float32) for text in texts]

    def _load(self, task: str) -> dict[str, np.ndarray]:
        if self.folder is None or not (self.folder / f"{task}.jsonl").exists():
            return {}
        vectors = np.memmap(self.folder / f"{task}.f16", np.float16, mode="r").reshape(-1, self.inner.dim)
        found, row = {}, 0
        for _, line in numbered_lines(self.folder / f"{task}.jsonl"):
            text, count = json.loads(line)
            found[text] = vectors[row : row + count]
            row += count
        return found

    def _append(self, task: str, texts: Sequence[str], vectors: Sequence[np.ndarray]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{task}.f16").open("ab") as file:
            file.write(np.concatenate(vectors).tobytes())
        with (self.folder / f"{task}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([text, len(each)]) + "\n" for text, each in zip(texts, vectors))


def squad2(data: Path, limit: int | None = None) -> tuple[Dataset, set[str]]:
    """All questions, or some drawn at random, and which of them have no answer."""
    with_answer, without = load_beir(data / "squad2-dev"), load_beir(data / "squad2-dev", split="unanswerable")
    queries = {**with_answer.queries, **without.queries}
    if limit is not None:
        chosen = random.Random(1).sample(sorted(queries), limit)
        queries = {id_: queries[id_] for id_ in chosen}
    dataset = Dataset("squad2-dev", with_answer.corpus, queries, with_answer.qrels, with_answer.answers)
    return dataset, set(without.queries) & set(queries)


def training_questions(data: Path, wordnet: Path) -> tuple[Dataset, dict[str, str]]:
    """Questions of the articles of squad-train that the reading model was not trained on, with some that were made from
    them; and the kinds of those."""
    whole = load_beir(data / "squad-train", split="train")
    chance = random.Random(3)
    maker, kept = maker_for(whole, wordnet, chance), kept_back(whole)
    corpus = {id_: document for id_, document in whole.corpus.items() if article_of(id_) in kept}
    queries, qrels, kinds = {}, {}, {}
    for id_, judged in whole.qrels.items():
        (passage,) = judged
        if passage not in corpus:
            continue
        queries[id_], qrels[id_] = whole.queries[id_], judged
        about = (whole.queries[id_], corpus[passage].text, whole.answers[id_][0], article_of(passage))
        for _ in range(4):
            kind = chance.choices(OF_QUESTIONS, [SHARES[each] for each in OF_QUESTIONS])[0]
            if made := maker.make(kind, *about):
                queries[f"{id_}-made"], qrels[f"{id_}-made"], kinds[f"{id_}-made"] = made.question, judged, kind
                break
        if chance.random() < OTHER_WORDS and (made := maker.make("synonym", *about)):
            queries[f"{id_}-reworded"], qrels[f"{id_}-reworded"] = made.question, judged
    return Dataset("squad-train", corpus, queries, qrels), kinds


def crisp_hits(encoder: CrispEncoder, tokens: CachedTokens, dataset: Dataset, k: int) -> Found:
    """What the default encoder finds: its pooling over the cached token vectors, exact MaxSim."""
    saved = tokens.folder and tokens.folder / f"{dataset.name}.{len(dataset.queries)}.{k}.hits.json"
    if saved and saved.exists():
        return {id_: [tuple(hit) for hit in hits] for id_, hits in json.loads(saved.read_text(encoding="utf-8")).items()}
    ids, texts = dataset.texts()
    documents = _pooled(encoder, tokens.encode_document(texts), "document")
    rows = np.concatenate(documents).astype(np.float32)
    starts = np.cumsum([0, *(len(each) for each in documents[:-1])])
    found: Found = {}
    queries = list(dataset.queries)
    for first in range(0, len(queries), 32):
        part = queries[first : first + 32]
        vectors = _pooled(encoder, tokens.encode_query([dataset.queries[id_] for id_ in part]), "query")
        ends = np.cumsum([0, *(len(each) for each in vectors[:-1])])
        best_of_each = np.maximum.reduceat(np.concatenate(vectors) @ rows.T, starts, axis=1)
        for id_, query, scores in zip(part, vectors, np.add.reduceat(best_of_each, ends, axis=0)):
            bound = float(np.linalg.norm(query, axis=1).sum()) or 1.0
            best = np.argsort(-scores, kind="stable")[:k]
            found[id_] = [(ids[row], float(scores[row]), float(scores[row]) / bound) for row in best]
    if saved:
        saved.write_text(json.dumps(found), encoding="utf-8")
    return found


def _pooled(encoder: CrispEncoder, arrays: Sequence[np.ndarray], task: str) -> list[np.ndarray]:
    result: list[Any] = [None] * len(arrays)
    order = np.argsort([len(array) for array in arrays], kind="stable")
    for first in range(0, len(order), 64):
        rows = order[first : first + 64]
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(arrays[row]) for row in rows], batch_first=True)
        mask = torch.arange(padded.shape[1]).unsqueeze(0) < torch.tensor([[len(arrays[row])] for row in rows])
        vectors, kept = encoder.pooling_module.pool_batch(padded, mask, task)
        for row, own, keep in zip(rows, vectors, kept):
            result[row] = own[keep].numpy().astype(np.float16 if task == "document" else np.float32)
    return result


def dense_hits(dataset: Dataset, k: int, crisp: Found, folder: Path | None) -> Found:
    """What one vector a passage finds.  A passage that crisp has not found either has the relevance of its last one."""
    saved = folder and folder / f"{dataset.name}.{len(dataset.queries)}.{k}.dense.json"
    ids = list(dataset.queries)
    if saved and saved.exists():
        ranked = json.loads(saved.read_text(encoding="utf-8"))
    else:
        system = create_system("dense")
        system.index(*dataset.texts())
        ranked = system.search([dataset.queries[id_] for id_ in ids], k)
        if saved:
            saved.write_text(json.dumps(ranked), encoding="utf-8")
    found: Found = {}
    for id_, hits in zip(ids, ranked):
        known = {document: relevance for document, _, relevance in crisp[id_]}
        found[id_] = [(document, score, known.get(document, crisp[id_][-1][2])) for document, score in hits]
    return found


def as_hits(dataset: Dataset, found: Sequence[tuple[str, float, float]]) -> list[Hit]:
    corpus = dataset.corpus
    return [Hit(id_, score, corpus[id_].text, {}, relevance, corpus[id_].title) for id_, score, relevance in found]


def figures(reader: ExtractiveReader, dataset: Dataset, found: Found, ids: Sequence[str]) -> list[dict[str, float]]:
    rows = []
    for first in range(0, len(ids), 256):
        part = ids[first : first + 256]
        texts, hits = [dataset.queries[id_] for id_ in part], [as_hits(dataset, found[id_]) for id_ in part]
        rows += [reader.features(examined) or {} for examined in reader.examine(texts, hits)]
    return rows


def used(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: row[name] for name in USED} for row in rows]


def fit_calibration(encoder: CrispEncoder, tokens: CachedTokens, data: Path, wordnet: Path) -> dict[str, Any]:
    """Fit the shipped calibration and write it; what it is worth on a fifth of the articles that was kept back."""
    dataset, kinds = training_questions(data, wordnet)
    found = crisp_hits(encoder, tokens, dataset, K + 1)
    reader = _reader(encoder, tokens, calibration=False)
    given = {id_: hits[:K] for id_, hits in found.items()}
    chance = random.Random(5)
    ids = list(dataset.queries)
    removed = [id_ for id_ in ids if id_ not in kinds and not id_.endswith("-reworded") and chance.random() < REMOVED]
    without = {id_: [hit for hit in found[id_] if hit[0] not in dataset.qrels[id_]][:K] for id_ in removed}
    rows = figures(reader, dataset, given, ids) + figures(reader, dataset, without, removed)
    rows = used(rows)
    labels = [id_ not in kinds for id_ in ids] + [False] * len(removed)
    share = REMOVED_WEIGHT * len(kinds) / max(1, len(removed))
    weights = [1.0] * len(ids) + [share] * len(removed)
    articles = [article_of(next(iter(dataset.qrels[id_]))) for id_ in [*ids, *removed]]
    aside = set(sorted(set(articles))[::5])
    fitting = [number for number, article in enumerate(articles) if article not in aside]
    checking = [number for number, article in enumerate(articles) if article in aside]
    about = f"{sum(labels)} questions of {KEPT_BACK} articles of SQuAD 1.1's training set, {len(kinds)} made from them, " \
            f"{len(removed)} whose passage was taken away"  # fmt: skip
    trial = fit(
        [rows[i] for i in fitting], [labels[i] for i in fitting], weights=[weights[i] for i in fitting], fingerprint=""
    )
    evidence = np.array([trial.probability(rows[i]) for i in checking])
    truth = np.array([labels[i] for i in checking])
    calibration = fit(rows, labels, weights=weights, fingerprint=tokens.fingerprint, fitted_on=about)
    curve = risk_curve([calibration.probability(row) for row in rows], labels)
    calibration = replace(calibration, threshold=best_threshold(curve, ANSWERED), keep=KEEP, support=SUPPORT)
    calibration.save(SHIPPED)
    for share in (0.98, 0.97, 0.96, 0.95, 0.94, 0.93):
        print(f"{share:.2f} of the questions are answered above {best_threshold(curve, share):.3f}.", flush=True)
    print(f"Fitted on {about}.", flush=True)
    kind_of = [kinds.get(id_, "") for id_ in ids] + ["removed"] * len(removed)
    by_kind = {
        kind: auroc(*_pick(evidence, truth, [truth[n] or kind_of[i] == kind for n, i in enumerate(checking)]))
        for kind in sorted(set(kind_of) - {""})
    }
    return {"fitted_on": about, "kept_back_auroc": auroc(truth, evidence), "kept_back_auroc_by_kind": by_kind}


def _pick(evidence: np.ndarray, truth: np.ndarray, chosen: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    mask = np.array(chosen)
    return truth[mask], evidence[mask]


def _reader(encoder: CrispEncoder, tokens: CachedTokens, **options: Any) -> ExtractiveReader:
    reader = ExtractiveReader(encoder, **options)
    reader.vectors.tokens = tokens
    return reader


def compression(reader: ExtractiveReader, dataset: Dataset, found: Found, ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Tokens of the prompt's passages, and how often a reference answer is still among them."""
    examined = reader.examine([dataset.queries[id_] for id_ in ids], [as_hits(dataset, found[id_]) for id_ in ids])
    result = {}
    for coverage in (None, 0.99, 0.97, 0.95, 0.9):
        packed = [pack(each, budget=4000, count=reader.vectors.count, coverage=coverage) for each in examined]
        texts = ["\n".join(block.text for block in each.blocks) for each in packed]
        result[str(coverage or "whole")] = {
            "tokens": float(np.mean([each.use.tokens for each in packed])),
            "saved": float(np.mean([each.use.saved for each in packed])),
            "answer_in_prompt": float(np.mean([contains(text, dataset.answers[id_]) for text, id_ in zip(texts, ids)])),
        }
    return result


class Recording(ExtractiveReader):
    """Keeps the figures of every question that it has read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen: dict[str, dict[str, float]] = {}

    def features(self, examined: Any) -> dict[str, float] | None:
        figures = super().features(examined)
        self.seen[examined.question.text] = figures or {}
        return figures


def measure(
    encoder: CrispEncoder, tokens: CachedTokens, data: Path, results: dict[str, Any], limit: int | None = None
) -> None:
    """Put the figures into the results, and write them down after every stage."""
    dataset, unanswerable_ids = squad2(data, limit)
    texts = {id_: document.text for id_, document in dataset.corpus.items()}
    reader = Recording(encoder)
    reader.vectors.tokens = tokens
    wide = crisp_hits(encoder, tokens, dataset, 50)
    crisp = {id_: hits[:K] for id_, hits in wide.items()}
    results.update({"encoder": encoder.name, "k": K, "threshold": reader.threshold})
    started = time.process_time()
    scores = evaluate_reader(reader, dataset, crisp, texts, unanswerable_ids)
    results["crisp"] = {**scores.to_dict(), "reading_cpu_seconds": time.process_time() - started}
    rows = [reader.seen[text] for text in dataset.queries.values()]
    ids = list(dataset.queries)
    truth = np.array([id_ not in unanswerable_ids for id_ in ids])
    plain = np.array([row["match"] for row in rows])
    results["abstention_auroc_without_calibration"] = auroc(truth, plain)
    without = ExtractiveReader(encoder, reading_model=False)
    without.vectors.tokens = tokens
    results["crisp_without_reading_model"] = evaluate_reader(without, dataset, crisp, texts, unanswerable_ids).to_dict()
    results["auroc_of_each_figure"] = {name: auroc(truth, np.array([row[name] for row in rows])) for name in (*NAMES, *READ)}
    evidence = [scores.per_query[id_]["evidence"] for id_ in ids]
    results["curve"] = [asdict(point) for point in risk_curve(evidence, truth.tolist(), points=41)]
    write(results)
    sample = random.Random(0).sample([id_ for id_ in ids if id_ not in unanswerable_ids], 500)
    results["of_500_questions"] = {
        "sentences_quoted": {str(count): quoted(encoder, tokens, dataset, crisp, sample, count) for count in (1, 2, 3)},
        "compression": compression(reader, dataset, crisp, sample),
    }
    write(results)
    dense = dense_hits(dataset, K, wide, tokens.folder)
    results["dense"] = evaluate_reader(reader, dataset, dense, texts, unanswerable_ids).to_dict()
    write(results)


def write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def quoted(
    encoder: CrispEncoder, tokens: CachedTokens, dataset: Dataset, found: Found, ids: Sequence[str], count: int
) -> float:
    """How often a reference answer is in so many quotes."""
    reader = _reader(encoder, tokens, calibration=False, threshold=-1.0, max_sentences=count)
    answers = reader.read_batch([dataset.queries[id_] for id_ in ids], [as_hits(dataset, found[id_]) for id_ in ids])
    return float(np.mean([contains(answer.text, dataset.answers[id_]) for answer, id_ in zip(answers, ids)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="For --fit.")
    arguments = parser.parse_args()
    encoder = load_encoder()
    tokens = CachedTokens(encoder, arguments.cache)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if arguments.fit:
        results["fit"] = fit_calibration(encoder, tokens, arguments.data, arguments.wordnet)
        write(results)
        print(json.dumps(results["fit"], indent=1))
    else:
        measure(encoder, tokens, arguments.data, results, arguments.limit)
        shown = {key: value for key, value in results["crisp"].items() if not isinstance(value, dict)}
        print(json.dumps({"crisp": shown, "dense": results["dense"]}, indent=1))


if __name__ == "__main__":
    main()
