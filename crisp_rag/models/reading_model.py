"""A question and a passage read together: whether the passage answers, with which words, and what it does not bear out.

    model = load_reading_model()
    (reading,) = model.read([("Who founded the mill?", "The mill was founded by Anna Gurney in 1906.")])
    reading.answerable > 0, reading.quote        # True, "Anna Gurney"

Late interaction matches words; it cannot see that "Who closed the mill?" is another question.  A small cross-encoder can
(MiniLM, 6 layers: Wang et al., arXiv 2002.10957), as in reading comprehension with unanswerable questions (SQuAD 2.0,
arXiv 1806.03822).  Three heads over one pass: whether there is an answer, where it begins and ends, and for each token of
the question whether the passage contradicts it or leaves it open.  ``benchmarks/reading_model.py`` is the recipe.

The weights lie in ``crisp_reader/`` beside this file, as 8-bit differences to the MiniLM that installs with crisp-rag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crisp_rag.errors import EncoderError
from crisp_rag.models.acceleration import padded_ids, quiet
from crisp_rag.models.encoder import _quiet_loading, default_backbone
from crisp_rag.models.shipped import read_over_base, write_over_base

FOLDER = Path(__file__).parent / "crisp_reader"
MAX_QUESTION_TOKENS = 32
MAX_TOKENS = 112
LONGEST_ANSWER = 24
"""Tokens."""
CAPACITY = 65_536
"""Readings that are kept: some 60 MB at most."""
_BATCH_TOKENS = 3072


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model makes of a question and a passage.

    Args:
        answerable: Log odds that the passage answers.
        start: Where the likeliest answer begins in the passage, in code points.
        end: Where it ends.
        quote: Its words.
        confidence: Its probability among all stretches, in (0, 1].
        unsupported: Log odds that the passage does not bear out some word of the question: those of the worst one.
    """

    answerable: float
    start: int
    end: int
    quote: str
    confidence: float
    unsupported: float


class ReadingNetwork(nn.Module):
    """The backbone and its three heads."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        width = backbone.config.hidden_size
        self.bert = backbone
        self.span = nn.Linear(width, 2)
        self.word = nn.Linear(width, 1)
        self.answerable = nn.Linear(width, 1)

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T) token ids, segments (1 in the passage) and mask to (B,) log odds, (B, T, 2) span and (B, T) word scores.

        Span scores are -1e4 outside the passage.
        """
        states = self.bert(ids, mask, types).last_hidden_state
        outside = (types == 0) | (mask == 0)
        span = self.span(states).masked_fill(outside.unsqueeze(-1), -1e4)
        return self.answerable(states[:, 0]).squeeze(-1), span, self.word(states).squeeze(-1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a passage as tokens.

    Args:
        ids: Of all tokens, special ones included.
        question: Tokens of the question.
        offsets: Where the passage's tokens stand in it.
    """

    ids: list[int]
    question: int
    offsets: list[tuple[int, int]]


class ReadingModel:
    """Reads pairs of question and passage; any number of threads may ask.  Keeps what it has read.

    Args:
        network: The network, on a CPU or an accelerator.
        tokenizer: A Hugging Face tokenizer with offsets.
    """

    def __init__(self, network: ReadingNetwork, tokenizer: Any) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self._known: dict[tuple[str, str], Reading] = {}

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Reading]:
        """Read (question, passage) pairs; what lies behind 112 tokens, 32 of them the question's, is not seen."""
        known = self._known
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        found = {pair: known[pair] for pair in pairs if pair in known} | dict(zip(new, self._read_all(new)))
        if len(known) + len(new) > CAPACITY:
            known = self._known = {}
        known.update((pair, found[pair]) for pair in new[:CAPACITY])
        return [found[pair] for pair in pairs]

    def _read_all(self, pairs: Sequence[tuple[str, str]]) -> list[Reading]:
        if not pairs:
            return []
        encoded = pairs_of(self.tokenizer, pairs)
        order = sorted(range(len(pairs)), key=lambda number: -len(encoded[number].ids))
        readings: list[Reading | None] = [None] * len(pairs)
        first = 0
        while first < len(order):
            rows = order[first : first + max(1, _BATCH_TOKENS // len(encoded[order[first]].ids))]
            for row, reading in zip(rows, self._read([encoded[row] for row in rows], [pairs[row][1] for row in rows])):
                readings[row] = reading
            first += len(rows)
        return readings  # type: ignore[return-value]  # every row was filled

    def _read(self, encoded: Sequence[Pair], passages: Sequence[str]) -> list[Reading]:
        device = self.network.answerable.weight.device
        tensors = [tensor.to(device) for tensor in padded(encoded)]
        with torch.inference_mode():
            answerable, span, word = (each.float().cpu() for each in self.network(*tensors))
        starts, ends, confidence = best_spans(span)
        readings = []
        for row, (pair, passage) in enumerate(zip(encoded, passages)):
            shift = pair.question + 2
            first, last = int(starts[row]) - shift, int(ends[row]) - shift
            found = 0 <= first <= last < len(pair.offsets)
            start, end = (pair.offsets[first][0], pair.offsets[last][1]) if found else (0, 0)
            worst = float(word[row, 1 : 1 + pair.question].max()) if pair.question else 0.0
            readings.append(Reading(float(answerable[row]), start, end, passage[start:end], float(confidence[row]), worst))
        return readings


def pairs_of(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """Token ids of ``[CLS] question [SEP] passage [SEP]``, cut to what the model reads."""
    with_offsets: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    questions = tokenizer(
        [question for question, _ in pairs], truncation=True, max_length=MAX_QUESTION_TOKENS, **with_offsets
    )
    passages = tokenizer([passage for _, passage in pairs], **with_offsets)
    encoded = []
    for question, ids, offsets in zip(questions["input_ids"], passages["input_ids"], passages["offset_mapping"]):
        kept = MAX_TOKENS - len(question) - 3
        row = [tokenizer.cls_token_id, *question, tokenizer.sep_token_id, *ids[:kept], tokenizer.sep_token_id]
        encoded.append(Pair(row, len(question), [tuple(each) for each in offsets[:kept]]))
    return encoded


def padded(encoded: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) ids, segments and mask."""
    ids, mask = padded_ids([pair.ids for pair in encoded], 0)
    behind = torch.arange(ids.shape[1]) >= torch.tensor([pair.question + 2 for pair in encoded]).unsqueeze(1)
    return ids, behind.long() * mask, mask


def best_spans(scores: Tensor, longest: int = LONGEST_ANSWER) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 2) scores to the (B,) first and last tokens of the likeliest stretches, and their probabilities."""
    starts, ends = scores.log_softmax(dim=1).unbind(dim=2)
    length = scores.shape[1]
    together = starts.unsqueeze(2) + ends.unsqueeze(1)
    allowed = torch.ones(length, length, dtype=torch.bool).triu().tril(longest - 1)
    best, flat = together.masked_fill(~allowed, -torch.inf).flatten(1).max(dim=1)
    return flat // length, flat % length, best.exp()


def save_reading_model(model: ReadingModel, folder: str | Path = FOLDER) -> None:
    """Write what the network has beyond MiniLM: the heads, and 8-bit differences with one scale a row.

    Raises:
        EncoderError: if its backbone is not the MiniLM that installs with crisp-rag.
    """
    base, tensors = _backbone().state_dict(), {}
    for name, tensor in model.network.state_dict().items():
        tensor = tensor.detach().cpu().float()
        own = name.removeprefix("bert.")
        if own == name:
            tensors[name] = tensor
        elif own not in base or base[own].shape != tensor.shape:
            raise EncoderError(f"The reading model has another backbone than {default_backbone()}.")
        elif not torch.equal(tensor, base[own]):
            rows = (tensor - base[own]).reshape(len(tensor), -1) if tensor.ndim > 1 else (tensor - base[own]).unsqueeze(0)
            scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
            tensors[f"{name}.difference"] = (rows / scale.unsqueeze(1)).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale
    write_over_base(folder, {}, tensors)


def read_saved(folder: str | Path = FOLDER, device: str | None = None) -> ReadingModel:
    """The model that :func:`save_reading_model` wrote.

    Raises:
        EncoderError: if a file is missing or damaged, or the base that is installed is another one.
    """
    _, saved = read_over_base(folder, "reading model")
    network = ReadingNetwork(_backbone())
    state = network.state_dict()
    for name, tensor in saved.items():
        if name.endswith(".difference"):
            own = name.removesuffix(".difference")
            change = tensor.float() * saved[f"{own}.scale"].unsqueeze(1)
            state[own] = state[own] + change.reshape(state[own].shape)
        elif not name.endswith(".scale"):
            state[name] = tensor
    network.load_state_dict(state)
    return ReadingModel(network.to(device or "cpu"), _tokenizer())


@lru_cache(maxsize=1)
def load_reading_model() -> ReadingModel:
    """The shipped model, loaded once; errors as :func:`read_saved`."""
    return read_saved()


def untrained() -> ReadingModel:
    """MiniLM with new heads: what training starts from."""
    return ReadingModel(ReadingNetwork(_backbone()), _tokenizer())


def _backbone() -> Any:
    from transformers import BertModel

    with quiet(), _quiet_loading():  # it would report that the pooler, which is not used, is not used
        return BertModel.from_pretrained(str(default_backbone()), add_pooling_layer=False, attn_implementation="sdpa")


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(default_backbone()))
