"""Bytes as text: by byte order mark, as declared, as UTF-8 with few errors, or in the encoding that is most plausible.

    decoded = decode("notes.txt", data)
    decoded.text, decoded.encoding, decoded.replaced

A detector of encodings guesses, and is wrong where there is little to go by: ``-18°C`` is read as Chinese, ``£5`` as
Polish.  So its guess has to be more plausible than Windows-1252, which is what most such files are.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import INSTALL

DEFAULT = "windows-1252"
FEW = 0.25
"""Bytes that are not UTF-8 may be so many for each character beyond ASCII that is, and the rest is still read as UTF-8."""
MARKED = 4096
"""Bytes at the head of a file in which it may declare its encoding."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = (
    re.compile(rb"""<\?xml[^>]{0,200}?\bencoding\s*=\s*["']([\w:.-]+)""", re.I),
    re.compile(rb"""<meta\b[^>]{0,400}?\bcharset\s*=\s*["']?\s*([\w:.-]+)""", re.I),
    re.compile(rb"""^@charset "([\w:.-]+)\"""", re.I),
    re.compile(rb"""^[ \t\f]*(?:#|//|--|;|%).{0,80}?\bcoding[:=][ \t]*([-\w.]+)""", re.M),
)
_ESCAPED_JAPANESE = re.compile(rb"\x1b\$[@B]")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# Letters that stand alone as words or initials in the languages of Windows-1252.
_ALONE = frozenset("àéèóòíìúùâêôûåæøöäüñçœßÀÉÈÓÒÍÌÚÙÂÊÔÛÅÆØÖÄÜÑÇŒªº")
_INSIDE_WORDS = frozenset("’‘·´-­ªº")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, the encoding that it was read in, and how many of its bytes are none of that."""

    text: str
    encoding: str
    replaced: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be told."""
        if not self.replaced:
            return ()
        what = "1 byte is" if self.replaced == 1 else f"{self.replaced} bytes are"
        return (f"{what} not {self.encoding.upper()} and read as \N{REPLACEMENT CHARACTER}",)


def decode(path: object, data: bytes, declared: str | None = None) -> Decoded:
    """Read bytes as text.

    Args:
        path: Names the file in errors.
        data: The bytes.
        declared: An encoding known from elsewhere, such as a mail's header; by default what the first bytes declare.

    Raises:
        IngestError: if they are no text.
        ImportError: naming the extra to install, for bytes that are neither UTF-8 nor declared.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return Decoded(data.decode(encoding), encoding.removesuffix("-sig"))
            except UnicodeDecodeError as error:
                raise IngestError(f"{path} is not text: it begins as {encoding} and does not go on so.") from error
    if b"\0" in data:
        return _wide(path, data)
    found = _decode(data, declared or declared_encoding(data))
    # A page may hold a stray escape; a file full of them is a program, a picture or a recording.
    if len(_CONTROLS.findall(found.text)) > max(8, len(found.text) // 20):
        raise IngestError(f"{path} is not text: it holds too many control characters.")
    return found


def declared_encoding(data: bytes) -> str | None:
    """The codec that a file says it is written in, by the names of the WHATWG's standard; None if it says none known."""
    head = data[:MARKED]
    for pattern in _DECLARED:
        if found := pattern.search(head):
            return codec_of(found.group(1).decode("ascii", "replace"))
    return None


def codec_of(label: str) -> str | None:
    """Python's codec for a label as browsers understand it: latin-1 means Windows-1252, gb2312 means GB 18030."""
    try:
        import webencodings
    except ImportError as error:
        raise ImportError(f"Reading declared encodings needs webencodings: {INSTALL}") from error
    known = webencodings.lookup(label)
    if known is not None:
        return None if known.name == "x-user-defined" else {"gbk": "gb18030"}.get(known.name, known.codec_info.name)
    try:
        return codecs.lookup(label).name if codecs.lookup(label)._is_text_encoding else None
    except LookupError:
        return None


def _decode(data: bytes, declared: str | None) -> Decoded:
    if _ESCAPED_JAPANESE.search(data):
        try:
            return Decoded(data.decode("iso2022_jp"), "iso-2022-jp")
        except UnicodeDecodeError:
            pass
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    # What the bytes held already is none of our replacements.
    wrong = text.count("\N{REPLACEMENT CHARACTER}") - data.count("\N{REPLACEMENT CHARACTER}".encode())
    right = len(_UTF8.findall(data))
    if wrong <= right * FEW or (declared == "utf-8" and wrong <= right):
        return Decoded(text, "utf-8", wrong)
    if declared and declared != "utf-8" and not declared.startswith("utf-16"):
        return _in(data, declared)
    return _in(data, _guess(data))


def _in(data: bytes, encoding: str) -> Decoded:
    """Bytes in an encoding; those that it has no character for are replaced, in Windows-1252 kept as browsers do."""
    if encoding in ("cp1252", DEFAULT):
        try:
            import webencodings

            return Decoded(webencodings.decode(data, DEFAULT)[0], DEFAULT)
        except ImportError:
            return Decoded(data.decode("cp1252", "replace"), DEFAULT)
    text = data.decode(encoding, "replace")
    return Decoded(text, encoding, text.count("\N{REPLACEMENT CHARACTER}"))


def _wide(path: object, data: bytes) -> Decoded:
    """Text with NUL bytes: UTF-16 without a mark, where every other byte is mostly NUL."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    half = max(len(data) // 2, 1)
    for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if high > 0.4 * half and low <= 0.02 * half:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if not _CONTROLS.search(text):
                return Decoded(text, encoding)
    raise IngestError(f"{path} is not text: it holds NUL bytes.")


def _guess(data: bytes) -> str:
    try:
        import chardetng_py
    except ImportError:
        raise ImportError(f"Reading text that is not UTF-8 needs chardetng-py: {INSTALL}") from None
    detector = chardetng_py.EncodingDetector()
    detector.feed(data, last=True)
    guess = detector.guess(tld=None, allow_utf8=False).lower()
    codec = codec_of(guess) or DEFAULT
    if codec in ("cp1252", DEFAULT):
        return DEFAULT
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return DEFAULT
    plain = data.decode("cp1252", "replace")
    if _is_latin(text):
        odd, plain_odd = _oddities(text), _oddities(plain)
        return codec if odd < plain_odd or (odd == 0 == plain_odd and _has_words(text)) else DEFAULT
    return codec if _is_foreign(text) else DEFAULT


def _is_foreign(text: str) -> bool:
    """Whether the text beyond ASCII is words of another script: letters in runs, not one or two among ours."""
    beyond = [character for character in text if ord(character) > 127]
    letters = [character for character in beyond if character.isalpha()]
    foreign = [character for character in letters if not _latin(character)]
    runs = re.findall(r"[^\x00-\x7f]{2,}", text)
    return len(foreign) >= 3 and len(foreign) >= 0.7 * len(letters) and sum(map(len, runs)) >= 0.7 * len(beyond)


def _is_latin(text: str) -> bool:
    return all(_latin(character) for character in text if ord(character) > 127 and character.isalpha())


def _latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN") or character in "ªºµ"


def _has_words(text: str) -> bool:
    """Whether two letters or more beyond ASCII stand in words."""
    return len(re.findall(r"(?:(?<=[a-zA-Z])[^\W\d_a-zA-Z])|(?:[^\W\d_a-zA-Z](?=[a-zA-Z]))", text)) >= 2


def _oddities(text: str) -> int:
    """How much in a text looks misread: letters beside figures, signs inside words, capitals behind small letters."""
    count = 0
    for place, character in enumerate(text):
        if ord(character) < 128:
            continue
        before = text[place - 1] if place else " "
        after = text[place + 1] if place + 1 < len(text) else " "
        if character.isalpha():
            alone = not before.isalpha() and not after.isalpha()
            beside = before.isdigit() or after.isdigit()
            count += (alone and character not in _ALONE) or (beside and character not in "µªº")
            count += before.isalpha() and before.islower() and character.isupper()
        elif unicodedata.category(character) == "Cc":
            count += 2
        elif character not in _INSIDE_WORDS:
            count += before.isalpha() and after.isalpha()
    return count
