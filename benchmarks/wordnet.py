"""What WordNet knows of an English word: its synonyms, its opposites, and its siblings (words for the same kind of thing).

    wordnet = WordNet(Path("/usr/share/wordnet"))       # Debian: apt-get install wordnet-base
    wordnet.opposites("largest")                        # ["smallest"]

Words come back in the form that the given one has.  Only the likeliest part of speech of a word is looked at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

PARTS = ("noun", "verb", "adj")
Analysis = tuple[str, str, str]
_RULES = {
    "noun": (("ies", "y", "plural"), ("es", "", "plural"), ("s", "", "plural")),
    "verb": (
        ("ies", "y", "s"), ("es", "e", "s"), ("es", "", "s"), ("s", "", "s"), ("ied", "y", "past"), ("ed", "e", "past"),
        ("ed", "", "past"), ("ing", "e", "ing"), ("ing", "", "ing"),
    ),
    "adj": (("er", "", "er"), ("est", "", "est"), ("er", "e", "er"), ("est", "e", "est")),
}  # fmt: skip


class WordNet:
    """WordNet's database files, read into memory.

    Args:
        folder: Holds ``data.noun``, ``index.noun``, ``noun.exc`` and so on.
        vocabulary: Only these words are given back; all if None.
    """

    def __init__(self, folder: Path, vocabulary: Collection[str] | None = None) -> None:
        self.vocabulary = vocabulary
        self.synsets: dict[str, dict[str, tuple[list[str], list[tuple[str, str, int, int]]]]] = {}
        self.senses: dict[str, dict[str, tuple[list[str], int]]] = {}  # lemma: (synsets, the commonest first; tagged uses)
        self.bases: dict[str, dict[str, str]] = {}
        self.irregular: dict[str, dict[str, list[str]]] = {part: defaultdict(list) for part in PARTS}
        self.children: dict[tuple[str, str], list[str]] = defaultdict(list)
        for part in PARTS:
            self.synsets[part] = dict(_synsets(folder / f"data.{part}"))
            self.senses[part] = dict(_senses(folder / f"index.{part}"))
            self.bases[part] = {}
            for line in (folder / f"{part}.exc").read_text(encoding="utf-8").splitlines():
                form, *bases = line.split()
                self.bases[part][form] = bases[0]
                self.irregular[part][bases[0]].append(form)
            for offset, (_, pointers) in self.synsets[part].items():
                for symbol, target, _, _ in pointers:
                    if symbol == "@":
                        self.children[part, target].append(offset)
        self.analyse: Callable[[str], Analysis | None] = lru_cache(maxsize=None)(self._analyse)
        self.related: Callable[[str, str], list[str]] = lru_cache(maxsize=None)(self._related)

    def synonyms(self, word: str) -> list[str]:
        return self.related(word, "synonyms")

    def opposites(self, word: str) -> list[str]:
        return self.related(word, "opposites")

    def siblings(self, word: str) -> list[str]:
        return self.related(word, "siblings")

    def _analyse(self, word: str) -> Analysis | None:
        """(part of speech, lemma, form), None for a word that WordNet's tagged texts do not have."""
        found = []
        for part in PARTS:
            known = ((lemma, form) for lemma, form in self._lemmas(word, part) if lemma in self.senses[part])
            if first := next(known, None):
                found.append((self.senses[part][first[0]][1], part, *first))
        best = max(found, key=lambda each: each[0], default=None)
        return best[1:] if best and best[0] else None

    def _lemmas(self, word: str, part: str) -> Iterator[tuple[str, str]]:
        if word in self.bases[part]:
            comparison = "er" if word.endswith("er") else "est"
            verb = "ing" if word.endswith("ing") else "past"
            yield self.bases[part][word], {"noun": "plural", "adj": comparison, "verb": verb}[part]
        yield word, "base"
        for suffix, new, form in _RULES[part]:
            if word.endswith(suffix) and len(word) > len(suffix) + 2:
                stem = word[: -len(suffix)]
                yield stem + new, form
                if form in ("past", "ing", "er", "est") and stem[-1] == stem[-2]:
                    yield stem[:-1], form

    def _related(self, word: str, how: str) -> list[str]:
        known = self.analyse(word)
        if not known:
            return []
        part, lemma, form = known
        lemmas = list({"synonyms": self._same, "opposites": self._opposed, "siblings": self._beside}[how](part, lemma))
        forms = (_inflected(each.lower(), part, form, self.irregular[part]) for each in dict.fromkeys(lemmas))
        return [made for made in forms if made and made != word and (self.vocabulary is None or made in self.vocabulary)]

    def _same(self, part: str, lemma: str) -> Iterator[str]:
        yield from (word for word in self.synsets[part][self.senses[part][lemma][0][0]][0] if word != lemma)

    def _opposed(self, part: str, lemma: str) -> Iterator[str]:
        for offset in self.senses[part][lemma][0][:3]:
            words, pointers = self.synsets[part][offset]
            for symbol, target, source, number in pointers:
                own = source == 0 or words[source - 1].lower() == lemma
                if symbol == "!" and own and target in self.synsets[part]:
                    yield self.synsets[part][target][0][number - 1]
                if symbol == "&" and part == "adj":  # an adjective's opposites are those of the one that it is like
                    for other, further, _, place in self.synsets[part][target][1]:
                        if other == "!":
                            yield self.synsets[part][further][0][place - 1]

    def _beside(self, part: str, lemma: str) -> Iterator[str]:
        offsets = self.senses[part][lemma][0]
        own = {word for offset in offsets for word in self.synsets[part][offset][0]}
        for symbol, target, _, _ in self.synsets[part][offsets[0]][1]:
            if symbol == "@" and part != "adj":
                for child in self.children[part, target]:
                    yield from (word for word in self.synsets[part][child][0] if word not in own and word.islower())


def _synsets(path: Path) -> Iterator[tuple[str, tuple[list[str], list[tuple[str, str, int, int]]]]]:
    """Offset: (words, pointers); a pointer is (symbol, target, number of the own word, of the target's), 0 for all."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split("|")[0].split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * number].split("(")[0] for number in range(count)]
            at = 4 + 2 * count
            rows = [fields[at + 1 + 4 * number : at + 5 + 4 * number] for number in range(int(fields[at]))]
            yield fields[0], (words, [(row[0], row[1], int(row[3][:2], 16), int(row[3][2:], 16)) for row in rows])


def _senses(path: Path) -> Iterator[tuple[str, tuple[list[str], int]]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split()
            count = int(fields[2])
            yield fields[0], (fields[-count:], int(fields[-count - 1]))


def _inflected(lemma: str, part: str, form: str, irregular: dict[str, list[str]]) -> str | None:
    if "_" in lemma:
        return None
    own: Sequence[str] = irregular.get(lemma, [])
    if form == "plural":
        return own[0] if own else _with_s(lemma, "(s|x|z|ch|sh)$")
    if form == "s":
        return _with_s(lemma, "(s|x|z|ch|sh|o)$")
    if form == "past":
        if past := [each for each in own if not each.endswith(("ing", "s"))]:
            return past[-1]
        return f"{lemma}d" if lemma.endswith("e") else f"{lemma[:-1]}ied" if re.search("[^aeiou]y$", lemma) else f"{lemma}ed"
    if form == "ing":
        if given := [each for each in own if each.endswith("ing")]:
            return given[0]
        return (lemma[:-1] if re.search("[^e]e$", lemma) else lemma) + "ing"
    if form in ("er", "est"):
        if len(lemma) > 6:
            return None
        return (lemma[:-1] if lemma.endswith("e") else f"{lemma[:-1]}i" if lemma.endswith("y") else lemma) + form
    return lemma


def _with_s(lemma: str, hissing: str) -> str:
    if re.search("[^aeiou]y$", lemma):
        return f"{lemma[:-1]}ies"
    return lemma + ("es" if re.search(hissing, lemma) else "s")
