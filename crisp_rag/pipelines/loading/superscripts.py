"""Superscripts and subscripts in a line of text: powers keep their number, marks of notes keep away from it.

``10<sup>6</sup> litres`` is ``10^6 litres``; ``40<sup>1</sup> euros`` with a note 1 is ``40 euros [1]``: a figure stays
beside its unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ENDINGS = re.compile(r"(?:st|nd|rd|th|er|re|e|ère|ème|o|a|os|as|de|ste|me|lle|mme|te|ten|tm|sm|®|™|℠|©)\.?", re.I)
_UNIT = re.compile(r"(?:^|[^\w])(?:[kcmdµn]?m|ft|in|yd|mi|sq|s|kg|g|l|ha|[a-zA-Z])$")
_POWER = re.compile(r"[+\-−–]?\d+|[+\-−–]?[a-z]|[+\-−–]", re.I)
_END = re.compile(r"[.,;:!?](?=\s|$)")


@dataclass(slots=True)
class Notes:
    """The marks of notes: which there are on a page, and those that wait for the end of their clause."""

    names: frozenset[str] = frozenset()
    waiting: list[str] = field(default_factory=list)

    def placed(self, text: str) -> str:
        """A text with the waiting marks before the end of its first clause; they go on waiting where it has none."""
        if not self.waiting or not (end := _END.search(text)):
            return text
        marks = self.taken()
        return f"{text[: end.start()].rstrip()}{marks}{text[end.start() :]}"

    def taken(self) -> str:
        """The waiting marks, which wait no longer."""
        marks = "".join(f" [{name}]" for name in self.waiting)
        self.waiting = []
        return marks


def superscript(before: str, raised: str, is_note: bool, notes: Notes) -> str:
    """What stands in the line for a superscript behind ``before``; a note's mark is put by for the end of the clause."""
    text = " ".join(raised.split())
    if not text:
        return ""
    if not before.strip():
        return f"[{text.strip('[]()')}] "  # the note itself
    last = before[-1]
    if _ENDINGS.fullmatch(text) and (last.isalnum() or not text[0].isalpha()) and not is_note:
        return text
    if is_note or _looks_like_a_note(before, text, notes):
        notes.waiting.append(text.strip("[]() "))
        return ""
    if text == "-" or text in "−–+":
        return f"^{text}"
    return f"^{text}" if _POWER.fullmatch(text) or text.isalnum() else f"^({text})"


def _looks_like_a_note(before: str, text: str, notes: Notes) -> bool:
    if re.fullmatch(r"[*†‡§¶#]+|\[.+\]|\(.{1,3}\)|\d+(?:\s?[,;]\s?\d+)+", text):
        return True
    if text in notes.names and not before.endswith("10"):
        return True
    if not re.fullmatch(r"\d{1,3}|[a-z]", text):
        return False
    if before[-1].isdigit():
        return text == "1"  # nobody writes a first power
    word = re.search(r"[^\W\d_]+$", before)
    if word is None:
        return not before.endswith((")", "]"))
    return text.isdigit() and not _UNIT.search(before) and len(word.group()) > 2


def subscript(before: str, lowered: str) -> str:
    """What stands in the line for a subscript behind ``before``: H2O, x_i, log_2."""
    text = " ".join(lowered.split())
    if not text or not before.strip():
        return text
    formula = text.isdigit() and re.search(r"(?:^|[^a-z])[A-Z][a-z]?$|[)\]]$", before)
    if formula:
        return text
    return f"_{text}" if text.isalnum() else f"_({text})"
