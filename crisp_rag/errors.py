"""Every error that crisp-rag raises on purpose.

Each carries one sentence: what was wrong, where, and what to do about it.  Catch :class:`CrispError`
to catch them all.  The ones that are also a :class:`ValueError` say that an argument was at fault.
"""

from __future__ import annotations


class CrispError(Exception):
    """Base of every error that crisp-rag raises on purpose."""


class InvalidInputError(CrispError, ValueError):
    """An argument is not acceptable: blank text, k below 1, a duplicate id, vectors of a wrong size."""


class FilterError(InvalidInputError):
    """A filter has an unknown operator or a malformed operand; the message lists what is allowed."""


class IndexNotFoundError(CrispError, FileNotFoundError):
    """There is no index at that path."""


class IndexExistsError(CrispError, FileExistsError):
    """There is something at that path already, and creating an index would overwrite it."""


class IndexCorruptError(CrispError):
    """A file of the index is missing, truncated or altered; the message names the file."""


class IndexFormatError(CrispError):
    """The index was written in a format that this version cannot read; the message names both."""


class IndexLockedError(CrispError):
    """Another writer holds the index; the message names the holder."""


class IndexReplacedError(CrispError):
    """The folder of an open index was moved, removed, or another one put in its place; the message names it."""


class ForkedError(CrispError):
    """The process was forked while the index was in use, so that what it inherited is of no use to it."""


class AccessError(CrispError, OSError):
    """The system refuses a file: missing rights, a read-only place, too many open files, a path too long."""


class DiskFullError(CrispError, OSError):
    """There is no space left for a write; the index is as it was before."""


class IndexClosedError(CrispError):
    """The index was used after ``close()``."""


class EncoderMismatchError(CrispError):
    """The index was built with another encoder; the message names both."""


class EncoderError(CrispError):
    """An encoder could not be loaded or saved."""


class IngestError(CrispError):
    """A source file or folder could not be read."""


class DatasetError(CrispError):
    """A data set folder is incomplete or malformed; the message names the file and the line."""


class LLMError(CrispError):
    """A language model could not be reached, or what it sent cannot be used."""
