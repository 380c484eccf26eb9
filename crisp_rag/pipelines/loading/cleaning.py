"""Text as an index takes it: one kind of line end and blank, letters for ligatures, nothing invisible."""

from __future__ import annotations

import re
import unicodedata

_LIGATURES = re.compile("[ﬀ-ﬆﬓ-ﬗﭏ⼀-⿕ﭐ-﷏ﷰ-﷼ﹰ-ﻼ]")
_BLANKS = re.compile("[\u00a0\u2007\u202f]")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")


def clean(text: str) -> str:
    """``\\n`` line ends, no NULs, letters for ligatures, and U+FFFD for the lone surrogates that some PDF fonts map to.

    Ligatures and presentation forms alone are normalised (NFKC): a raised ² or a ½ says more than 2 or 1/2 would.  Soft
    hyphens and blanks without width go, blanks that do not break become plain ones, so that words are found.
    """
    text = re.sub(r"\r\n?", "\n", text).replace("\0", " ")
    text = _INVISIBLE.sub("", _BLANKS.sub(" ", text))
    text = _LIGATURES.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
