"""Text from strangers on a terminal: what would steer the terminal is shown, and does nothing.

A passage, a file's name or a model's answer may hold escape sequences.  Some of them write to the clipboard, change the
window's title, or paint over what is there; marks of direction make a text read as another one.
"""

from __future__ import annotations

import re

from rich.markup import escape as _escape_markup

_BEYOND_ASCII = "\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_STEERING = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}]")
_IN_JSON = re.compile(f"[{_BEYOND_ASCII}]")


def visible(text: str) -> str:
    """The text with ``\\x1b`` and its like written out; line breaks and tabs stay.

    ``\\r\\n`` is a line break as well, and other carriage returns, which go back over the line, are written out.
    """
    return _STEERING.sub(_written_out, text.replace("\r\n", "\n"))


def escape(text: str) -> str:
    """The same, ready for a console that reads markup."""
    return _escape_markup(visible(text))


def visible_json(text: str) -> str:
    """JSON with those characters written out that JSON may hold as they are."""
    return _IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
