"""What a language model writes, cut where it stops making sense: at a limit, at a loop, at an echo of the prompt.

A small model may go on for ever, repeat itself, or copy its prompt.  None of that is an answer, and nobody should wait
for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

MAX_TOKENS = 512
REPEATS = 3
"""The same line, or the same stretch of text, so many times is a loop."""
_STRETCH = 12
_CHECK = 48
"""Characters after which the text is looked at again."""
_PROMPT_LINE = re.compile(
    r"(?:^|\n)[ \t]*(?:Passages:|Question:|Answer:[ \t]*\n|You answer questions from numbered passages)"
)
_NUMBERED = re.compile(r"(?:^|\n)[ \t]*\[(\d+)\][ \t]*(\S[^\n]*)")


def guarded(
    pieces: Iterator[str], user: str, *, max_tokens: int, count: Callable[[str], int], on_text: Callable[[str], None] | None
) -> tuple[str, str]:
    """Take a model's words until it is done or stops making sense.

    Args:
        pieces: What it says, as it comes; closed when it is cut off.
        user: The prompt, whose lines it may echo.
        max_tokens: Tokens of its answer at most.
        count: Counts the tokens of a text.
        on_text: Gets the pieces as they come.

    Returns:
        What it said, without what it repeated or echoed; and why it was cut off, '' if it was not.
    """
    text, checked = "", 0
    cut = ""
    for piece in pieces:
        # Pieces of whatever size: a model that says everything at once is cut like one that spells.
        for part in _parts(piece):
            text += part
            if on_text is not None:
                on_text(part)
            if len(text) - checked < _CHECK and "\n" not in part:
                continue
            checked = len(text)
            kept, cut = _sense(text, user, max_tokens, count)
            if cut:
                text = kept
                break
        if cut:
            break
    else:
        text, cut = _sense(text, user, max_tokens, count)
    close = getattr(pieces, "close", None)
    if cut and close is not None:
        close()
    return text, cut


def _parts(piece: str) -> Iterator[str]:
    for start in range(0, len(piece), 512):
        yield piece[start : start + 512]


def _sense(text: str, user: str, max_tokens: int, count: Callable[[str], int]) -> tuple[str, str]:
    """The text up to where it stops making sense, and why it does."""
    if (place := _echo(text, user)) is not None:
        return text[:place], "it echoed the prompt"
    if (place := _loop(text)) is not None:
        return text[:place], "it repeated itself"
    # A token has one character at least: short texts need no counting.
    if len(text) > max_tokens and count(text) > max_tokens:
        return _first_tokens(text, max_tokens, count), f"it wrote more than {max_tokens} tokens"
    return text, ""


def _first_tokens(text: str, max_tokens: int, count: Callable[[str], int]) -> str:
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= max_tokens else (low, middle - 1)
    return text[:low]


def _echo(text: str, user: str) -> int | None:
    """Where the text begins to copy the prompt's frame: its headings, or a passage with its number in front."""
    if found := _PROMPT_LINE.search(text):
        return found.start()
    known = {line.strip() for line in user.splitlines() if line.strip()}
    for found in _NUMBERED.finditer(text):
        if f"[{found.group(1)}] {found.group(2).strip()}" in known:
            return found.start()
    return None


def _loop(text: str) -> int | None:
    """Where the text begins to repeat itself for the third time."""
    seen: dict[str, list[int]] = {}
    position = 0
    for line in re.split(r"(?<=[.!?\n])\s+", text):
        place = text.index(line, position)
        position = place + len(line)
        key = " ".join(re.sub(r"\[\d+\]", "", line).lower().split())
        if len(key) >= _STRETCH:
            places = seen.setdefault(key, [])
            places.append(place)
            if len(places) == REPEATS:
                return places[1]
    tail = text[-900:]
    for length in range(_STRETCH, len(tail) // REPEATS + 1):
        stretch = tail[-length:]
        if tail.endswith(stretch * REPEATS) and stretch.strip():
            return len(text) - length * (REPEATS - 1)
    # A short word, or a sign, over and over.
    words = tail.split()
    if len(words) >= 12 and len(set(words[-12:])) == 1:
        return max(0, len(text) - len("".join(words[-11:])) - 11)
    return None
