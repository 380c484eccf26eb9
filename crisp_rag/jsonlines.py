"""The lines of a small JSON lines file, numbered for messages about them."""

from __future__ import annotations

from pathlib import Path

from crisp_rag.errors import DatasetError


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that are not blank, counted from 1; a byte order mark is passed over.

    Only ``\\n`` ends a line: JSON leaves U+2028 and its like as they are inside a string.

    Raises:
        DatasetError: naming the file, if it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
