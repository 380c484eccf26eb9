"""The reader that needs no language model: it quotes the sentences that answer, or says that there are none.

    reader = ExtractiveReader(index.encoder)
    answer = reader.read("how long do refunds take?", index.search("how long do refunds take?", 5))
    answer.sources[0].quote, answer.span

Sentences are scored with the token vectors of the encoder that found their passages, see
:mod:`crisp_rag.pipelines.evidence`; whether there is an answer at all is decided by :mod:`crisp_rag.pipelines.abstention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Hit
from crisp_rag.pipelines import abstention
from crisp_rag.pipelines.agreement import asks_for_the_past, disagree, standing_of
from crisp_rag.pipelines.evidence import PassageVectors, Question, ReadPassage
from crisp_rag.pipelines.features import READ, Candidate, features, reading_features
from crisp_rag.pipelines.reading import NOT_FOUND, Answer, Source, Statement, source_of
from crisp_rag.pipelines.sentences import Sentence, around
from crisp_rag.pipelines.spans import best_span

if TYPE_CHECKING:
    from crisp_rag.models.reading_model import Reading, ReadingModel

DEFAULT_THRESHOLD = 0.5
"""For encoders without a calibration: least score of the best sentence."""
PASSAGE_WEIGHT = 0.5
WINDOWS = 2


@dataclass(frozen=True, slots=True)
class Examined:
    """What a reader knows of a question before it decides.

    Args:
        question: The question's vectors.
        hits: The passages found.
        passages: Their sentences and vectors.
        matches: Their token matches with the question.
        candidates: Their sentences, best first.
        reading: What the reading model makes of the window of sentences that it thinks answers, with spans in the passage;
            None without.
        read: The sentence that this window lies around; None without.
        evidence: What the threshold is applied to.
    """

    question: Question
    hits: Sequence[Hit]
    passages: Sequence[ReadPassage]
    matches: Sequence[np.ndarray]
    candidates: Sequence[Candidate]
    reading: Reading | None
    read: Candidate | None
    evidence: float


class ExtractiveReader:
    """Quotes the sentences that answer best.

    A sentence scores its own relevance to the question (MaxSim over the largest possible MaxSim, in [-1, 1]) plus
    ``passage_weight`` times that of its passage, over 1 + ``passage_weight``.  The evidence of an answer is the
    probability that the calibration gives it; without a calibration for the encoder, the best sentence's score.

    Args:
        encoder: The encoder of the index.
        max_sentences: Sentences to quote at most.
        threshold: Evidence below it means that the documents do not hold the answer; the calibration's by default.
        keep: A further sentence is quoted if it scores at least this share of the best one; by default the share that
            goes with the encoder.
        passage_weight: How much the passage counts beside the sentence.
        calibration: What turns figures into evidence; None takes the shipped one if it was made for this encoder,
            and False does without.
        reading_model: Reads the question and sentences together; None takes the shipped one, and False does without:
            then the calibration does too, and the short answer is found by rules.
        windows: How many windows of sentences it reads, each around the best sentence that is in none before.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        max_sentences: int = 2,
        threshold: float | None = None,
        keep: float | None = None,
        passage_weight: float = PASSAGE_WEIGHT,
        calibration: abstention.Calibration | bool | None = None,
        reading_model: ReadingModel | bool | None = None,
        windows: int = WINDOWS,
    ) -> None:
        self.encoder = encoder
        self.vectors = PassageVectors(encoder)
        self.max_sentences = max_sentences
        self.passage_weight = passage_weight
        self.windows = windows
        self._reading_model = reading_model
        shipped = abstention.load_for(self.vectors.tokens)
        if keep is None:
            keep = shipped.keep if shipped else abstention.KEEP
        self.keep = keep
        self.support = shipped.support if shipped else abstention.SUPPORT
        if calibration is None or calibration is True:
            calibration = shipped if reading_model is not False else None
        if calibration and reading_model is False and not set(READ).isdisjoint(calibration.weights):
            raise InvalidInputError("This calibration needs the reading model; do without both, or with both.")
        self.calibration: abstention.Calibration | None = calibration or None
        if threshold is None:
            threshold = self.calibration.threshold if self.calibration else DEFAULT_THRESHOLD
        self.threshold = threshold

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """Quotes from the hits, or nothing."""
        return self.read_batch([question], [hits])[0]

    def read_batch(self, questions: Sequence[str], hits: Sequence[Sequence[Hit]]) -> list[Answer]:
        """As :meth:`read` for several questions, whose vectors are made together."""
        return [self.answer_from(examined) for examined in self.examine(questions, hits)]

    def examine(self, questions: Sequence[str], hits: Sequence[Sequence[Hit]]) -> list[Examined]:
        """Score the sentences of every question's hits, and weigh the evidence."""
        if not questions:
            return []
        distinct = {(hit.context, hit.text, hit.metadata.get("format")): hit for found in hits for hit in found}
        if len(distinct) <= self.vectors.capacity:
            self.vectors.passages(list(distinct.values()))  # all that is new, encoded together
        examined = [
            self._ranked(question, found, self.vectors.passages(found))
            for question, found in zip(self.vectors.questions(questions), hits, strict=True)
        ]
        examined = self._with_readings(examined)
        return [replace(each, evidence=self._evidence(each)) if each.candidates else each for each in examined]

    def features(self, examined: Examined) -> dict[str, float] | None:
        """The figures that evidence is computed from; None where there is no sentence to look at."""
        if not examined.candidates:
            return None
        found = features(examined.question, examined.hits, examined.passages, examined.matches, examined.candidates)
        return found | reading_features(examined.reading) if examined.reading else found

    def _with_readings(self, examined: Sequence[Examined]) -> list[Examined]:
        """Each with what the reading model makes of the window that it likes best, of those around the best sentences."""
        if self._reading_model is False:
            return list(examined)
        windows = [self._windows(each) for each in examined]
        pairs = [
            (each.question.text, each.hits[candidate.hit].text[start:end])
            for each, own in zip(examined, windows)
            for candidate, start, end in own
        ]
        readings = iter(self._model().read(pairs) if pairs else [])
        found = []
        for each, own in zip(examined, windows):
            if own:
                read = [(next(readings), candidate, start) for candidate, start, _ in own]
                reading, candidate, start = max(read, key=lambda one: one[0].answerable)
                reading = replace(reading, start=reading.start + start, end=reading.end + start)
                each = replace(each, reading=reading, read=candidate)
            found.append(each)
        return found

    def _windows(self, examined: Examined) -> list[tuple[Candidate, int, int]]:
        """The best sentences, each with its neighbours: where that begins and ends in the passage."""
        windows: list[tuple[Candidate, int, int]] = []
        for candidate in examined.candidates:
            if len(windows) == self.windows:
                break
            sentences = examined.passages[candidate.hit].sentences
            sentence = sentences[candidate.sentence]
            if not any(c.hit == candidate.hit and a <= sentence.start and sentence.end <= b for c, a, b in windows):
                windows.append((candidate, *around(sentences, candidate.sentence)))
        return windows

    def _model(self) -> ReadingModel:
        if self._reading_model is None or isinstance(self._reading_model, bool):
            from crisp_rag.models.reading_model import load_reading_model

            return load_reading_model()
        return self._reading_model

    def _ranked(self, question: Question, hits: Sequence[Hit], passages: Sequence[ReadPassage]) -> Examined:
        matches = [passage.match(question) if passage.sentences else np.zeros((0, 0)) for passage in passages]
        candidates = []
        for number, (hit, passage, match) in enumerate(zip(hits, passages, matches)):
            if not passage.sentences:
                continue
            for position, own in enumerate(passage.sentence_scores(match, question).tolist()):
                score = (own + self.passage_weight * hit.relevance) / (1 + self.passage_weight)
                candidates.append(Candidate(number, position, own, score))
        candidates.sort(key=lambda candidate: -candidate.score)
        return Examined(question, hits, passages, matches, candidates, None, None, 0.0)

    def _evidence(self, examined: Examined) -> float:
        if self.calibration is None or examined.question.offsets is None:
            return examined.candidates[0].score
        return self.calibration.probability(self.features(examined) or {})

    def answer_from(self, examined: Examined) -> Answer:
        """Quotes from what was examined, or nothing."""
        question = examined.question.text
        sources, span = self._quotes(examined)
        if not sources or examined.evidence < self.threshold:
            return Answer(question, NOT_FOUND, False, examined.evidence, nearest=sources, nearest_span=span)
        sources, span, note = self._agreeing(examined, sources, span)
        statements = [Statement(source.quote, (source,), 1.0, True) for source in sources]
        text = " ".join(source.quote for source in sources)
        if note:
            text, others = sources[0].quote, sources[1:]
            text += "".join(f" Another passage says otherwise{_in_brackets(each.standing)}: {each.quote}" for each in others)
        return Answer(question, text, True, examined.evidence, sources, statements, span, note=note)

    def _valid(self, examined: Examined) -> Candidate | None:
        """The best sentence of a passage that is not superseded, if it is nearly as good as the best of all."""
        for candidate in examined.candidates:
            if candidate.score < self.keep * examined.candidates[0].score:
                return None
            if not standing_of(examined.hits[candidate.hit]).superseded:
                return candidate
        return None

    def _agreeing(
        self, examined: Examined, sources: list[Source], span: Source | None
    ) -> tuple[list[Source], Source | None, str]:
        """The quotes without those that others supersede; those that disagree with their standing, the newer first.

        The note is empty where they agree.
        """
        hits = {hit.id: hit for hit in examined.hits}
        standings = {source.id: standing_of(hits[source.id]) for source in sources}
        past = any(asks_for_the_past(examined.question.text, standings[source.id]) for source in sources)
        current = [source for source in sources if past or not standings[source.id].superseded]
        if current and len(current) < len(sources):
            # What was quoted beside it held once; the short answer may come from there.
            kept = span if span and any(source.id == span.id for source in current) else _span_of(examined, current[0])
            return current, kept, ""
        if not current:
            return [replace(source, standing=standings[source.id].words) for source in sources], span, ""
        first, *others = sources
        apart = [
            other
            for other in others
            if _file_of(hits[other.id]) != _file_of(hits[first.id])
            and disagree(examined.question.text, first.quote, other.quote)
        ]
        if not apart:
            return sources, span, ""
        # Undated ones keep their order, which is that of relevance.
        ordered = [first, *apart]
        if all(standings[source.id].date for source in ordered):
            ordered.sort(key=lambda source: standings[source.id].date or (0, 0, 0), reverse=True)
        marked = [replace(source, standing=standings[source.id].words) for source in ordered]
        kept = span if span and span.id == marked[0].id else _span_of(examined, marked[0])
        return marked, kept, "The passages disagree: the first quote is newer, or fits the question better."

    def _quotes(self, examined: Examined) -> tuple[list[Source], Source | None]:
        """The best sentence, the one that the reading model answers from, further good ones, no two alike; and the short
        answer."""
        if not examined.candidates:
            return [], None
        best, *others = examined.candidates
        holding = _holding(examined)
        standing = standing_of(examined.hits[best.hit])
        wanted = standing.superseded and not asks_for_the_past(examined.question.text, standing)
        if wanted and (valid := self._valid(examined)) is not None:
            # What holds now goes before what matched a little better and held once.
            others = [best, *(candidate for candidate in others if candidate is not valid)]
            best, holding = valid, holding if holding is valid else None
        order = [best, *([holding] if holding and holding is not best else []), *(c for c in others if c is not holding)]
        sources: list[Source] = []
        span = None
        for candidate in order:
            good = candidate is holding or candidate.score >= self.keep * best.score
            if len(sources) == self.max_sentences or not good:
                break
            hit = examined.hits[candidate.hit]
            sentence = examined.passages[candidate.hit].sentences[candidate.sentence]
            if any(source.quote == sentence.text for source in sources):
                continue
            sources.append(source_of(hit, sentence, candidate.score))
            if candidate is holding and examined.reading is not None:
                reading = examined.reading
                span = source_of(hit, Sentence(reading.quote, reading.start, reading.end), candidate.score)
            elif span is None and (place := best_span(examined.question.text, sentence.text)):
                words = Sentence(sentence.text[slice(*place)], sentence.start + place[0], sentence.start + place[1])
                span = source_of(hit, words, candidate.score)
        return sources, span


def _span_of(examined: Examined, source: Source) -> Source | None:
    """The short answer in a quote, by rules."""
    if (place := best_span(examined.question.text, source.quote)) is None:
        return None
    return replace(source, start=source.start + place[0], end=source.start + place[1], quote=source.quote[slice(*place)])


def _file_of(hit: Hit) -> str:
    return str(hit.metadata.get("source") or hit.id)


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""


def _holding(examined: Examined) -> Candidate | None:
    """The sentence in which the reading model's answer begins; one that is not the best only where it sees an answer."""
    reading, read, best = examined.reading, examined.read, examined.candidates[0]
    if reading is None or read is None or not reading.quote:
        return None
    eligible = examined.candidates if reading.answerable > 0 else [best]
    for candidate in (each for each in eligible if each.hit == read.hit):
        sentence = examined.passages[read.hit].sentences[candidate.sentence]
        if sentence.start <= reading.start < sentence.end:
            return candidate
    return None
