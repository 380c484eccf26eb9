"""Numbers that a file writes out as text."""

from __future__ import annotations

_DIGITS = 18  # fewer than 64 bits can hold, and than Python refuses to read


def is_number(said: str) -> bool:
    """Whether a text is a whole number from 0 on, in ASCII digits: ``isdigit`` also takes "²", which is no number."""
    return said.isascii() and said.isdigit() and len(said) <= _DIGITS
