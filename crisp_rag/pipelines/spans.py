"""The words of a sentence that answer by themselves: a date for "when", a name for "who", a number for "how many".

    span = best_span("When was the mill built?", "The mill was built in 1806 by Gurney.")    # (22, 26): "1806"

No parser and no model: candidates are dates, numbers with their unit, names, and runs of words that the question does
not have; the kind of question says which of them are looked for first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

QUESTION_WORDS = frozenset({"what", "which", "who", "whom", "whose", "when", "where", "why", "how"})
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_DATE = re.compile(
    rf"\b(?:(?:{_DAYS}),?\s+)?(?:\d{{1,2}}(?:st|nd|rd|th)?\s+)?(?:{_MONTHS})\b(?:\s+\d{{1,2}}(?:st|nd|rd|th)?(?!\d))?(?:,?\s+\d{{4}})?"
    rf"|\b(?:{_DAYS})\b|\b(?:the\s+)?(?:(?:late|early|mid)[ -])?\d{{4}}s\b|\b(?:1\d{{3}}|20\d\d)\b(?:\s?[–-]\s?\d{{2,4}})?"
    r"|\b(?:\d{1,2}(?:st|nd|rd|th)|first|second|third|[a-z]+teenth|[a-z]+tieth)\s+(?:century|centuries)\b"
    r"|\b\d{1,4}\s?(?:BC|AD|BCE|CE)\b"
)
_CALENDAR = frozenset(f"{_MONTHS}|{_DAYS}".lower().split("|"))
NUMBER = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|eighty|"
    r"ninety|dozens?|hundreds?|thousands?|millions?|billions?|half|quarter|several|percent)\b",
    re.I,
)
_FIGURE = re.compile(r"(?:(?:US)?[$£€])?\d[\d,.]*\d(?:\s?%)?|(?:[$£€])?\d(?:\s?%)?|" + NUMBER.pattern, re.I)
_UNIT = re.compile(
    r"(?:\s|-)(?:(?:million|billion|trillion|thousand|hundred)(?:\s|-))?(?!(?:and|or|of|in|on|at|to|for|from|by|with|the|were|was|are|is)\b)[a-z%°²]+"
)
_NAME = re.compile(r"[A-ZÀ-Þ][\w'’.-]*(?:\s+(?:(?:of|the|de|la|von|van|and|der|du|del|for)\s+){0,2}[A-ZÀ-Þ][\w'’.-]*)*")
_TOKEN = re.compile(r"[^\W_]+(?:[.,'’-][^\W_]+)*")
_SMALL_WORDS = (
    "a an the of in on at to for from by with and or but is are was were be been has have had it its as that this which who "
    "also than then there into when while where not"
)
_GLUE = frozenset(_SMALL_WORDS.split())
_LEADS = {"who": re.compile(r"\bby (?:the )?$"), "where": re.compile(r"\b(?:in|at|from|near|to) (?:the )?$")}
_LEAD = 40
_WHEN = re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|decade|century|time)|in what year|during what)\b", re.I)
_COUNT = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|large|big|high|fast|often|deep|wide|heavy)\b|"
    r"\bwhat (?:percent|percentage|number|amount|age|population|fraction|proportion|temperature|is the population)\b",
    re.I,
)
_WHO = re.compile(r"\b(?:who|whom|whose)\b", re.I)
_WHERE = re.compile(
    r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|location|region|continent|river|town|county)\b", re.I
)
LONGEST = 12


def kind_of(question: str) -> str:
    """``when``, ``number``, ``who``, ``where`` or ``other``."""
    for kind, pattern in (("when", _WHEN), ("number", _COUNT), ("who", _WHO), ("where", _WHERE)):
        if pattern.search(question):
            return kind
    return "other"


def says_when(sentence: str, question: str) -> bool:
    """Whether the sentence names a date that the question does not."""
    return any(found.group() not in question for found in _DATE.finditer(sentence))


def new_names(sentence: str, question: str) -> list[tuple[int, int]]:
    """Spans of the names in a sentence that are not in the question."""
    asked = {word.lower() for word in _TOKEN.findall(question)}
    spans = []
    for found in _NAME.finditer(sentence):
        start, end = found.span()
        words = [word.lower() for word in _TOKEN.findall(found.group())]
        if start == 0 and len(words) == 1 and words[0] in _GLUE:
            continue
        if words and words[0] in ("the", "a", "an") and len(words) > 1:
            start += len(words[0]) + 1
            words = words[1:]
        if not words or all(word in asked or word in _GLUE or word in _CALENDAR for word in words):
            continue
        spans.append((start, start + len(sentence[start:end].rstrip(".,'’-"))))
    return spans


def best_span(question: str, sentence: str) -> tuple[int, int] | None:
    """Where the short answer stands in the sentence, in code points; None if nothing looks like one."""
    kind = kind_of(question)
    places = list(_asked_places(question, sentence))
    spans = list(_candidates(kind, question, sentence)) or list(_others(question, sentence))
    if not spans:
        return None

    def distance(span: tuple[int, int]) -> float:
        """To the nearest words that question and sentence share, in characters; less behind "by" for "who" and the like."""
        gaps = sorted(max(start - span[1], span[0] - end, 0) for start, end in places)
        led = kind in _LEADS and _LEADS[kind].search(sentence[: span[0]])
        return sum(gaps[:3]) - (_LEAD if led else 0)

    return min(spans, key=distance)


def _candidates(kind: str, question: str, sentence: str) -> Iterator[tuple[int, int]]:
    if kind == "when":
        for found in _DATE.finditer(sentence):
            if found.group() not in question:
                yield found.start(), found.start() + len(found.group().rstrip(" ,"))
    elif kind == "number":
        for found in _FIGURE.finditer(sentence):
            if found.group() not in question:
                unit = _UNIT.match(sentence, found.end())
                counted = re.search(r"\bhow (?:long|old|far|tall|high|fast|deep|wide|heavy|much)\b", question, re.I)
                yield found.start(), unit.end() if unit and counted else found.end()
    elif kind in ("who", "where"):
        yield from new_names(sentence, question)


def _others(question: str, sentence: str) -> Iterator[tuple[int, int]]:
    """Runs of words that the question does not have, without the small words at their ends."""
    asked = {_short(word) for word in _TOKEN.findall(question)}
    run: list[re.Match[str]] = []
    for found in [*_TOKEN.finditer(sentence), None]:
        joined = found is not None and (not run or not re.search(r"[,;:()]", sentence[run[-1].end() : found.start()]))
        if found is not None and joined and _short(found.group()) not in asked:
            run.append(found)
            continue
        while run and run[0].group().lower() in _GLUE:
            run.pop(0)
        while run and run[-1].group().lower() in _GLUE:
            run.pop()
        if run:
            run = run[:LONGEST]
            yield run[0].start(), run[-1].end()
        run = [found] if found is not None and _short(found.group()) not in asked else []


def _asked_places(question: str, sentence: str) -> Iterator[tuple[int, int]]:
    asked = {_short(word) for word in _TOKEN.findall(question)} - _GLUE
    for found in _TOKEN.finditer(sentence):
        if _short(found.group()) in asked:
            yield found.span()


def _short(word: str) -> str:
    """The beginning of a word, so that its endings do not matter."""
    word = word.lower()
    return word[: max(4, len(word) - 2)] if len(word) > 4 else word
