"""What both adapters need and neither framework provides: combining filters and building an index.

    where = narrow({"team": "sales"}, lambda metadata: metadata["year"] > 2020)
    index = build_index("handbook.crisp", passages)

Users call neither; they come through the adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.filters import check_filter, predicate
from crisp_rag.index.types import Where

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

_T = TypeVar("_T")


def narrow(*filters: Where | None) -> Where | None:
    """One filter that keeps what all of the given ones keep; None where none is given.

    Dicts stay a dict, which the index evaluates in SQL.  With a function among them the result is a function:
    the filters are asked in the order given, so that a later one sees only what the earlier ones let through.

    Raises:
        FilterError: if one is malformed.
    """
    given = [where for where in filters if where is not None]
    for where in given:
        check_filter(where)
    if len(given) < 2:
        return given[0] if given else None
    if not any(callable(where) for where in given):
        return {"$and": given}
    tests = [predicate(where) for where in given]
    return lambda metadata: all(test(metadata) for test in tests)


def build_index(
    path: str | Path, passages: Iterable[Passage], encoder: Encoder | None = None, *, exist_ok: bool = False
) -> CrispIndex:
    """Make an index and add the passages in one commit; with ``exist_ok`` add them to the one that is there.

    Raises:
        IndexExistsError: if there is something at the path and ``exist_ok`` is not set.
        InvalidInputError: naming the passages that cannot be added.  None was added; what is at the path then is
            an empty index or the one that was there before, and ``exist_ok=True`` goes on with it.
    """
    index = CrispIndex.create(path, encoder, exist_ok=exist_ok)
    over(index, lambda made: made.add(passages))
    return index


def over(index: CrispIndex, make: Callable[[CrispIndex], _T]) -> _T:
    """What a function makes of an index that was just opened, which is closed again where that fails."""
    try:
        return make(index)
    except BaseException:
        index.close()
        raise
