"""Makes questions that a passage does not answer out of questions that it does, and questions that it still does.

    maker = Maker(articles, wordnet, random.Random(0))
    maker.make("opposite", question, window, answer, article)       # Made("When did the war end?", window, ...)

A name, a number or a word is exchanged for another one of the article, for its opposite or for a sibling (WordNet), a
"not" is put in, a place or a time is put behind; or the passage is changed instead, so that the question stays as people
ask.  A synonym, or the same change on both sides, leaves the answer: a model that learns what a changed text looks like
learns nothing.  Now and then a passage answers the new question too; nobody has checked them one by one.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wordnet import WordNet

SHARES = {
    "name": 20, "opposite": 14, "sibling": 10, "other": 12, "negate": 6, "phrase": 6, "window": 16, "window_not": 3,
    "natural": 13,
}  # fmt: skip
"""How often each way is tried; ``natural`` is another passage of the article, for the caller to find."""
OF_QUESTIONS = tuple(kind for kind in SHARES if kind not in ("window", "window_not", "natural"))
STILL_ANSWERED = {"synonym": 1.0, "both": 1.2}
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_NAMED = re.compile(r"[A-Z][\w'’-]*(?:\s+(?:of|the|de|and)\s+(?=[A-Z]))?(?:\s+[A-Z][\w'’-]*)*|\d[\d,.]*\d|\d")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_VERB = re.compile(r"\b(is|are|was|were|did|does|do|can|could|has|have|had|will|would|should)\b")
_PHRASE = re.compile(
    r"\b(?:in|during|after|before|by|at|from|for|since|until|with|under) (?:the )?"
    r"(?:[A-Z0-9][\w'-]*(?: [A-Z][\w'-]*)*|[a-z]+ [a-z]+)(?=\?$| *$|,)"
)
_SMALL_WORDS = (
    "what which who whom whose when where why how the and for with that this these those from into about some any also many "
    "much does did was were are is has have had been being name type kind one there their than more most year time first "
    "under other like such both each"
)
_SMALL = frozenset(_SMALL_WORDS.split())


@dataclass(frozen=True, slots=True)
class Made:
    """A changed question or passage.

    Args:
        question: The question.
        window: The passage's part that is read.
        changed: Spans of the question that the passage does not bear out.
    """

    question: str
    window: str
    changed: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Article:
    """What may be put in: an article's names, its words by part of speech and form, and its questions."""

    names: list[str] = field(default_factory=list)
    words: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    questions: list[str] = field(default_factory=list)


def articles_of(
    texts: Mapping[str, Sequence[str]], questions: Mapping[str, list[str]], wordnet: WordNet
) -> dict[str, Article]:
    """By name, from each article's passages and questions."""
    found = {}
    for name, passages in texts.items():
        article = found[name] = Article(questions=questions[name])
        for text in passages:
            article.names += [m.group() for m in _NAMED.finditer(text) if m.start() > 1 and text[m.start() - 2] != "."]
            for word in _content(text, first=True):
                if known := wordnet.analyse(word.group()):
                    article.words[known[0], known[2]].append(word.group())
    return found


class Maker:
    """Makes questions; each way gives None where it finds nothing to change.

    Args:
        articles: Where names and words come from.
        wordnet: Where opposites, siblings and synonyms come from.
        chance: What decides.
    """

    def __init__(self, articles: Mapping[str, Article], wordnet: WordNet, chance: random.Random) -> None:
        self.articles = articles
        self.wordnet = wordnet
        self.chance = chance

    def make(self, kind: str, question: str, window: str, answer: str, article: str) -> Made | None:
        """One of :data:`SHARES` (but ``natural``) or :data:`STILL_ANSWERED`."""
        if kind == "name":
            return self._name(question, window, answer, article)
        if kind == "negate":
            return self._negate(question, window)
        if kind == "phrase":
            return self._phrase(question, window, answer, article)
        if kind == "window_not":
            return self._window_not(question, window, answer)
        if kind in ("window", "both"):
            return self._window(question, window, answer, article, both=kind == "both")
        return self._word(question, window, answer, article, kind)

    def _name(self, question: str, window: str, answer: str, article: str) -> Made | None:
        own = [found for found in _NAMED.finditer(question) if found.start() > 0]
        if not own:
            return None
        found = self.chance.choice(own)
        other = self._other_name(found.group(), article, window, f"{question} {answer}")
        return _exchanged(question, window, found.span(), other)

    def _word(self, question: str, window: str, answer: str, article: str, kind: str) -> Made | None:
        own = _content(question)
        self.chance.shuffle(own)
        for found in own:
            if other := self._other_word(found.group(), article, f"{question} {answer}", kind):
                return _exchanged(question, window, found.span(), other)
        return None

    def _negate(self, question: str, window: str) -> Made | None:
        verb = _VERB.search(question)
        if not verb:
            return None
        said = self.chance.choice(("not",) * 6 + ("never",) * 2)
        if verb.group() in ("did", "does", "do"):  # before the next verb: "Where did she not live?"
            for word in list(re.finditer(r"\S+", question[verb.end() :]))[1:]:
                known = self.wordnet.analyse(word.group().strip("?,").lower())
                if known and known[0] == "verb" and known[2] == "base":
                    said = self.chance.choice(("not", "not", "not", "never", "fail to", "refuse to"))
                    return _inserted(question, window, verb.end() + word.start(), f"{said} ")
        if self.chance.random() < 0.35 and verb.group() not in ("can", "will"):
            made = _inserted(question, window, verb.end(), "n't")
            return Made(made.question, window, ((verb.start(), verb.end() + 3),))
        return _inserted(question, window, verb.end(), f" {said}")

    def _phrase(self, question: str, window: str, answer: str, article: str) -> Made | None:
        if _PHRASE.search(question):
            return None
        for _ in range(20):
            found = _PHRASE.search(self.chance.choice(self.articles[article].questions))
            if found and found.group().lower() not in question.lower() and answer.lower() not in found.group().lower():
                base = question.rstrip("? ")
                return Made(f"{base} {found.group()}?", window, ((len(base) + 1, len(base) + 1 + len(found.group())),))
        return None

    def _window(self, question: str, window: str, answer: str, article: str, both: bool) -> Made | None:
        """Another word in the passage where both have it: the question stays as it was asked."""
        named = [(found.group(), True) for found in _NAMED.finditer(question) if found.start() > 0]
        shared = named + [(found.group(), False) for found in _content(question)]
        shared = [each for each in shared if _has(window, each[0]) and each[0].lower() not in answer.lower()]
        self.chance.shuffle(shared)
        for word, name in shared:
            if name:
                other = self._other_name(word, article, window, f"{question} {answer}")
            else:
                how = self.chance.choice(("opposite", "sibling", "other"))
                other = self._other_word(word, article, f"{question} {window}", how)
            changed = _everywhere(window, word, other) if other else window
            if changed == window or answer not in changed:
                continue
            if both:
                asked = _everywhere(question, word, other or word)
                return Made(asked, changed) if asked != question else None
            at = question.find(word)
            return Made(question, changed, ((at, at + len(word)),))
        return None

    def _window_not(self, question: str, window: str, answer: str) -> Made | None:
        at = window.find(answer)
        start, end = max(window.rfind(". ", 0, at) + 1, 0), window.find(". ", at)
        verbs = [
            verb for verb in _VERB.finditer(window, start, end if end >= 0 else len(window))
            if verb.group() not in ("do", "does", "did") and not window[verb.end() :].startswith(" not")
        ]  # fmt: skip
        if not verbs:
            return None
        verb = min(verbs, key=lambda found: abs(found.start() - at))
        said = self.chance.choice(("not",) * 6 + ("never",) * 2)
        return Made(question, f"{window[: verb.end()]} {said}{window[verb.end() :]}")

    def _other_name(self, old: str, article: str, window: str, unlike: str) -> str | None:
        number, year = old[0].isdigit(), bool(_YEAR.fullmatch(old))
        pools = [_NAMED.findall(window), self.articles[article].names]
        self.chance.shuffle(pools)
        for pool in pools:
            others = [
                other for other in pool
                if other[0].isdigit() == number and bool(_YEAR.fullmatch(other)) == year
                and other.lower() not in unlike.lower() and old.lower() not in other.lower()
                and other.lower() not in _SMALL and len(other) > (0 if number else 2)
                and abs(len(other.split()) - len(old.split())) < 3
            ]  # fmt: skip
            if others:
                return self.chance.choice(others)
        if year:
            return str(int(old) + self.chance.choice((-20, -7, -3, -1, 1, 2, 10)))
        return str(max(2, int(old) + self.chance.choice((-3, -2, -1, 1, 2, 5, 10)))) if old.isdigit() else None

    def _other_word(self, word: str, article: str, unlike: str, how: str) -> str | None:
        if how == "other":
            known = self.wordnet.analyse(word.lower())
            pool = self.articles[article].words.get((known[0], known[2]), []) if known else []
        else:
            wordnet = self.wordnet
            related = {"opposite": wordnet.opposites, "sibling": wordnet.siblings, "synonym": wordnet.synonyms}[how]
            pool = related(word.lower())
        pool = [other for other in pool if other not in unlike.lower()]
        return self.chance.choice(pool) if pool else None


def _content(text: str, first: bool = False) -> list[re.Match[str]]:
    """Words that are not names and say something; not the text's first, unless ``first``."""
    return [
        found for found in _WORD.finditer(text)
        if (first or found.start() > 0) and len(found.group()) > 3 and found.group()[0].islower()
        and found.group() not in _SMALL
    ]  # fmt: skip


def _exchanged(question: str, window: str, span: tuple[int, int], other: str | None) -> Made | None:
    if not other:
        return None
    return Made(question[: span[0]] + other + question[span[1] :], window, ((span[0], span[0] + len(other)),))


def _inserted(question: str, window: str, at: int, said: str) -> Made:
    start = at + len(said) - len(said.lstrip())
    return Made(question[:at] + said + question[at:], window, ((start, start + len(said.strip())),))


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _everywhere(text: str, word: str, other: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _: other, text)
