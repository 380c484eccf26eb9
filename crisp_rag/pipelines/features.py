"""Figures about a question and the sentence that matches it best: what the evidence for an answer is computed from.

All are plain numbers, named in :data:`NAMES`.  "Words" are the question's words with content, weighted by how rare their
tokens are to the encoder; a word is "there" if a word with the same stem is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from crisp_rag.index.types import Hit
from crisp_rag.pipelines.evidence import Question, ReadPassage
from crisp_rag.pipelines.spans import NUMBER, QUESTION_WORDS, kind_of, new_names, says_when

if TYPE_CHECKING:
    from crisp_rag.models.reading_model import Reading

_WORD = re.compile(r"[^\W_]+(?:[.,'’-][^\W_]+)*")
_SMALL_WORDS = (
    "a an the of in on at to for from by with and or is are was were be been being do does did has have had it its their "
    "his her they he she as than then there that this these those into about some any also during after before between "
    "name type kind one what's i me my we us our you your"
)
_STOP = frozenset(_SMALL_WORDS.split()) | QUESTION_WORDS
NEGATION = re.compile(
    r"\b(not|never|no|none|without|cannot|neither|nor|fail\w*|rarely|least|lack\w*|refus\w*|except|\w+n[’']t)\b", re.I
)
_SUFFIXES = ("'s", "’s", "ing", "edly", "ed", "es", "ly", "s", "e")
_PAIRS = (
    "first last,most least,before after,largest smallest,highest lowest,more less,increase decrease,oldest youngest,"
    "best worst,early late,north south,east west,northern southern,eastern western,begin end,began ended,start end,"
    "large small,major minor,high low,old new,win lose,won lost,open close,support oppose,allow ban,male female,men women,"
    "father mother,son daughter,black white,rich poor,strong weak,long short,top bottom,upper lower,internal external,"
    "public private,modern ancient,found abolish,create destroy,gain lose,gained lost,join leave,joined left,many few,"
    "always never,common rare,popular unpopular,positive negative,rise fall,rose fell,good bad,hot cold,fast slow,"
    "easy difficult,buy sell,bought sold,same different,inside outside,above below,maximum minimum,longest shortest,"
    "import export,latest earliest,greater smaller,legal illegal,accept reject,known unknown,help hinder,"
    "prior subsequent,majority minority,main secondary"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that could be quoted.

    Args:
        hit: Number of its passage among the hits.
        sentence: Its number in the passage.
        own: Its own relevance to the question, in [-1, 1].
        score: That with its passage's, in [-1, 1].
    """

    hit: int
    sentence: int
    own: float
    score: float


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    stem: str
    weight: float
    in_sentence: float  # how well its tokens match
    in_passage: float
    named: bool  # a name or a number


def features(
    question: Question,
    hits: Sequence[Hit],
    passages: Sequence[ReadPassage],
    matches: Sequence[np.ndarray],
    candidates: Sequence[Candidate],
) -> dict[str, float]:
    """The figures of one question.

    Args:
        question: The question; its tokens' offsets are needed.
        hits: The passages found, best first.
        passages: Their sentences and vectors.
        matches: Their :meth:`ReadPassage.match` with the question.
        candidates: Their sentences, best first, at least one.
    """
    best = candidates[0]
    hit, passage, match = hits[best.hit], passages[best.hit], matches[best.hit]
    first, end = passage.bounds[best.sentence]
    sentence = passage.sentences[best.sentence].text
    lengths = np.maximum(question.weights, 1e-6)
    in_sentence, in_passage = match[:, first:end].max(axis=1) / lengths, match.max(axis=1) / lengths
    words = _words(question, in_sentence, in_passage)
    weights = np.array([word.weight for word in words])
    weights = weights / (weights.sum() or 1.0)
    own, around = np.array([word.in_sentence for word in words]), np.array([word.in_passage for word in words])
    stems = _stems(sentence)
    near = stems.union(*(_stems(each.text) for each in passage.sentences[max(0, best.sentence - 1) : best.sentence + 2]))
    whole = _stems(hit.text)
    anywhere = whole.union(*(_stems(other.text) for other in hits), *(_stems(other.context) for other in hits))

    def there(where: frozenset[str]) -> np.ndarray:
        return np.array([word.stem in where for word in words])

    named = np.array([word.named for word in words])
    missing_here, missing_near, missing_passage = ~there(stems), ~there(near), ~there(whole)
    relevance = [each.relevance for each in hits]
    elsewhere = [other.score for other in candidates if other.hit != best.hit]
    unasked = _unasked(passage.vectors[first:end], question)
    denied, denying = bool(NEGATION.search(question.text)), bool(NEGATION.search(sentence))
    kind = kind_of(question.text)
    return {
        "match": best.score,
        "sentence": best.own,
        "passage": hit.relevance,
        "first_passage": max(relevance),
        "passage_lead": max(relevance) - float(np.mean(relevance)),
        "lead_in_all": best.own - candidates[1].own if len(candidates) > 1 else 0.0,
        "lead_elsewhere": best.score - elsewhere[0] if elsewhere else 0.0,
        "worst_word": float(own.min()),
        "worst_words": float(np.sort(own)[:2].mean()),
        "words": float(weights @ own),
        "word_gaps": float(weights @ (1 - own) ** 2),
        "largest_gap": float((weights * (1 - own)).max()),
        "worst_word_passage": float(around.min()),
        "words_passage": float(weights @ around),
        "word_gaps_passage": float(weights @ (1 - around) ** 2),
        "largest_gap_passage": float((weights * (1 - around)).max()),
        "same_words": float(weights @ ~missing_here),
        "same_words_near": float(weights @ ~missing_near),
        "same_words_passage": float(weights @ ~missing_passage),
        "same_words_anywhere": float(weights @ there(anywhere)),
        "missing_words": float(missing_passage.sum()),
        "worst_missing": float(own[missing_here].min()) if missing_here.any() else 1.0,
        "worst_missing_passage": float(around[missing_passage].min()) if missing_passage.any() else 1.0,
        "missing_names": float((named & missing_here).sum()),
        "missing_names_near": float((named & missing_near).sum()),
        "missing_names_passage": float((named & missing_passage).sum()),
        "negated_question": float(denied),
        "negated_question_only": float(denied and not denying),
        "negated_sentence_only": float(denying and not denied),
        "opposite": float(any(_opposed(word.stem, stems) for word in words)),
        "kind_there": _kind_there(kind, question.text, sentence),
        "asks_when": float(kind == "when"),
        "asks_number": float(kind == "number"),
        "asks_name": float(kind in ("who", "where")),
        "asked_words": float(len(words)),
        "sentence_length": float(np.log(max(1, end - first))),
        "sentence_asked": unasked[0],
        "question_word": unasked[1],
    }


NAMES = (
    "match", "sentence", "passage", "first_passage", "passage_lead", "lead_in_all", "lead_elsewhere", "worst_word",
    "worst_words", "words", "word_gaps", "largest_gap", "worst_word_passage", "words_passage", "word_gaps_passage",
    "largest_gap_passage", "same_words", "same_words_near", "same_words_passage", "same_words_anywhere", "missing_words",
    "worst_missing", "worst_missing_passage", "missing_names", "missing_names_near", "missing_names_passage",
    "negated_question", "negated_question_only", "negated_sentence_only", "opposite", "kind_there", "asks_when",
    "asks_number", "asks_name", "asked_words", "sentence_length", "sentence_asked", "question_word",
)  # fmt: skip


READ = ("answerable", "confidence", "unsupported")


def reading_features(reading: Reading) -> dict[str, float]:
    """The figures that the reading model adds, named in :data:`READ`; the confidence as a logarithm."""
    return {
        "answerable": reading.answerable,
        "confidence": float(np.log(max(reading.confidence, 1e-9))),
        "unsupported": reading.unsupported,
    }


def _words(question: Question, in_sentence: np.ndarray, in_passage: np.ndarray) -> list[_Word]:
    """The question's words with content; at least one."""
    offsets = question.offsets or []
    starts, ends = np.array([start for start, _ in offsets]), np.array([end for _, end in offsets])
    words = []
    for found in _WORD.finditer(question.text):
        text = found.group()
        if text.lower() in _STOP:
            continue
        rows = np.flatnonzero((ends > starts) & (starts < found.end()) & (ends > found.start()))
        weights = question.weights[rows]
        total = float(weights.sum())
        if total <= 0:
            continue
        named = (text[0].isupper() and found.start() > 0) or text[0].isdigit()
        matched = float(weights @ in_sentence[rows]) / total, float(weights @ in_passage[rows]) / total
        words.append(_Word(text, stem(text), total, *matched, named))
    if not words:
        mean = float(question.weights @ in_sentence) / question.bound, float(question.weights @ in_passage) / question.bound
        words.append(_Word(question.text, "", question.bound, *mean, False))
    return words


def _unasked(vectors: np.ndarray, question: Question) -> tuple[float, float]:
    """How much of the sentence the question asks about; and how well its question word finds something beside that.

    The first is the mean over the sentence's tokens of their best cosine with a token of the question; the second the
    best cosine of the question word's token with a token that the question does not name itself (below .6).
    """
    directions = question.vectors / np.maximum(question.weights, 1e-6)[:, None]
    similarity = directions @ vectors.astype(np.float32).T
    worded = [row for row, (start, end) in enumerate(question.offsets or []) if end > start]  # without the special tokens
    named = (similarity[worded] if worded else similarity).max(axis=0)
    rows = [
        row for row, (start, end) in enumerate(question.offsets or []) if question.text[start:end].lower() in QUESTION_WORDS
    ]
    other = named < 0.6
    word = float(similarity[rows][:, other].max()) if rows and other.any() else 0.0
    return float(named.mean()), word


def _kind_there(kind: str, question: str, sentence: str) -> float:
    """1 if the sentence has what is asked for (a date, a number, a name) beyond the question, -1 if not, else 0."""
    if kind == "when":
        return 1.0 if says_when(sentence, question) else -1.0
    if kind == "number":
        asked = set(re.findall(r"\d[\d,.]*", question))
        return 1.0 if set(re.findall(r"\d[\d,.]*", sentence)) - asked or NUMBER.search(sentence) else -1.0
    if kind in ("who", "where"):
        return 1.0 if new_names(sentence, question) else -1.0
    return 0.0


def _opposed(word: str, stems: frozenset[str]) -> bool:
    other = _OPPOSITE_STEMS.get(word)
    return other is not None and word not in stems and other in stems


def content_stems(text: str) -> frozenset[str]:
    """The stems of a text's words that say something by themselves."""
    return frozenset(stem(word) for word in _WORD.findall(text) if word.lower() not in _STOP)


@lru_cache(maxsize=16384)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in _WORD.findall(text))


def stem(word: str) -> str:
    """A word without its commonest English endings, in lower case: enough to know "invented" from "inventing"."""
    word = word.lower()
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


_OPPOSITE_STEMS = {
    stem(word): stem(other) for pair in _PAIRS.split(",") for word, other in (pair.split(), pair.split()[::-1])
}
