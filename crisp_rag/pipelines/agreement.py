"""Whether quotes hold together: what is superseded, what is newer, and what says otherwise.

    standing = standing_of(hit)                          # standing.superseded, standing.date
    disagree("How long do refunds take?", "They take five days.", "They were paid within ten.")

Two passages may answer the same question differently because one is old.  Joined they would read as if both held.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crisp_rag.index.types import Hit
from crisp_rag.pipelines.features import NEGATION, content_stems
from crisp_rag.pipelines.spans import kind_of

SHARED = 0.5
"""Share of the question's content words that two quotes have in common at least, to speak of the same."""
_SUPERSEDED = re.compile(
    r"\b(?:superseded|obsolete|outdated|out of date|veraltet|aufgehoben|replaced by|"
    r"no longer (?:valid|in force|applies|apply|current)|not (?:valid|in force) any ?more|"
    r"(?:old|previous|former) (?:version|rules|policy|edition|terms))\b",
    re.I,
)
# A page about expired passports holds; one titled "Passports (expired)" does not.
_ENDED = re.compile(r"(?:[(\[:–—-]\s*|^\s*)(?:withdrawn|repealed|revoked|deprecated|archived|expired)\b\s*(?:[)\]]|$)", re.I)
_ABOUT_THE_PAST = re.compile(
    r"\b(?:old|former|formerly|previous|previously|earlier|until|used to|before|back then|past)\b", re.I
)
_STATUS = ("status", "state", "validity")
_DATE_KEYS = ("date", "updated", "modified", "last_modified", "effective", "valid_from", "published", "version_date", "year")
_MONTH_WORDS = "january february march april may june july august september october november december"
_MONTHS = _MONTH_WORDS.split()
_ISO = re.compile(r"\b((?:19|20)\d\d)(?:-(\d\d)(?:-(\d\d))?)?\b")
_WRITTEN = re.compile(
    rf"\b(?:(\d{{1,2}})(?:st|nd|rd|th)?\s+)?({'|'.join(_MONTHS)})\s+(?:(\d{{1,2}}),\s*)?((?:19|20)\d\d)\b", re.I
)
_SAYS_WHEN = re.compile(
    r"\b(?:effective|valid|in force|applies|as of|since|from|updated|revised|version|edition|dated|date)\b[^.\n]{0,40}", re.I
)
# What a question measures with, and verbs that go with anything.
_LIGHT = content_stems(
    "long many much far old tall high often take takes last get have cost pay paid need day days hours year"
)
_FIGURE = re.compile(r"(?<![\w.])[-−]?\d+(?:[.,]\d+)*")
_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty"
)
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_WORDS.split(), 1)} | {
    word: str(10 * number)
    for number, word in enumerate(["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 3)
}
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.I)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a passage says of its own validity.

    Args:
        superseded: Whether it says that something else holds now.
        date: Year, month and day, 0 for what is not said; None where it says no date.
    """

    superseded: bool
    date: tuple[int, int, int] | None

    @property
    def words(self) -> str:
        """The same in words, such as ``2023-04, superseded``."""
        parts = []
        if self.date is not None:
            year, month, day = self.date
            parts.append(f"{year}" + (f"-{month:02}" if month else "") + (f"-{day:02}" if day else ""))
        if self.superseded:
            parts.append("superseded")
        return ", ".join(parts)


def standing_of(hit: Hit) -> Standing:
    """What a passage's metadata, headings, and the words about itself say; what it tells of other things does not count."""
    data = hit.metadata
    named = " ".join(str(data.get(key) or "") for key in ("title", "heading")) + f" {hit.context}"
    file = str(data.get("source") or "").rpartition("/")[2]
    stated = " ".join(str(data.get(key) or "") for key in _STATUS)
    about = hit.text[:300]
    headings = [str(data.get("title") or ""), *hit.context.split(" > "), stated]
    superseded = (
        _SUPERSEDED.search(f"{named} {stated} {re.sub(r'[_-]', ' ', file)}") is not None
        or any(_ENDED.search(heading) for heading in headings)
        or (re.match(r"\W*(?:this|these)\b", about, re.I) is not None and _SUPERSEDED.search(about[:120]) is not None)
    )
    return Standing(
        superseded, _known_date(data) or _date_in(named) or _date_in(file.replace("_", " ")) or _date_said(about)
    )


def asks_for_the_past(question: str, standing: Standing) -> bool:
    """Whether a question wants what held once: it says so, or names the year of what is superseded."""
    year = str(standing.date[0]) if standing.date else "\0"
    return bool(_ABOUT_THE_PAST.search(question) or _SUPERSEDED.search(question)) or year in question


def disagree(question: str, one: str, other: str) -> bool:
    """Whether two quotes answer a question differently: another figure for the same, or one denies what the other says."""
    asked, first, second = content_stems(question), content_stems(one), content_stems(other)
    asked = asked - _LIGHT or asked
    common = first & second
    if not asked or len(common & asked) < SHARED * min(len(asked), 4):
        return False
    if bool(NEGATION.search(one)) != bool(NEGATION.search(other)):
        return len(common) >= 0.6 * min(len(first), len(second))
    if kind_of(question) not in ("number", "when"):
        return False
    values, others = figures(one) - figures(question), figures(other) - figures(question)
    return bool(values) and bool(others) and not values & others


def figures(text: str) -> set[str]:
    """The figures of a text, number words as figures."""
    found = {match.group().replace(",", "").replace("−", "-") for match in _FIGURE.finditer(text)}
    return found | {_NUMBER_WORDS[match.group().lower()] for match in _NUMBER_WORD.finditer(text)}


def _known_date(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    for key in _DATE_KEYS:
        if (value := data.get(key)) is not None and (found := _date_in(str(value))):
            return found
    return None


def _date_said(text: str) -> tuple[int, int, int] | None:
    """A date that the text names as its own: "effective 1 March 2024"."""
    found = _SAYS_WHEN.search(text)
    return _date_in(found.group()) if found else None


def _date_in(text: str) -> tuple[int, int, int] | None:
    if found := _WRITTEN.search(text):
        day = found.group(1) or found.group(3)
        return int(found.group(4)), _MONTHS.index(found.group(2).lower()) + 1, int(day or 0)
    if found := _ISO.search(text):
        month, day = int(found.group(2) or 0), int(found.group(3) or 0)
        return int(found.group(1)), month if month <= 12 else 0, day if month and day <= 31 else 0
    return None
