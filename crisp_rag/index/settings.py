"""What an index says of itself: its format, its encoder, the width of its vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crisp_rag.errors import IndexCorruptError, IndexFormatError

FORMAT_VERSION = 2
"""1: all vectors are float16.  2: segments name their codec."""
_NEEDED = ("format_version", "generation", "encoder", "encoder_source", "fingerprint", "dim", "pooling")


def check_settings(path: Path, settings: Mapping[str, str]) -> Mapping[str, str]:
    """The settings of a database, if this version can work with them.

    Raises:
        IndexFormatError: if a newer version wrote it; the message names both.
        IndexCorruptError: if some are missing or are no numbers where they should be.
    """
    version = settings.get("format_version", "")
    if version.isdigit() and int(version) > FORMAT_VERSION:
        raise IndexFormatError(
            f"{path.parent} has format {version} and this crisp-rag reads up to {FORMAT_VERSION}: upgrade crisp-rag."
        )
    numbers = ("format_version", "generation", "dim")
    if not all(key in settings for key in _NEEDED) or not all(settings[key].isdigit() for key in numbers):
        raise IndexCorruptError(f"{path} lacks its settings; restore it from a copy.")
    return settings
