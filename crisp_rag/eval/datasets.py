"""Reads a test collection in BEIR's form, and refuses one that would be measured wrongly.

A folder holds ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``, sometimes
``answers``) and ``qrels/<split>.tsv`` (a header, then query id, document id and grade, with tabs between; or TREC's four
columns), each of them packed as ``.gz`` or not.  Where there is ``qrels/unanswerable.tsv``, its queries are those that no
document answers: a reader should decline them, and no retriever is measured on them.

    dataset = load_beir("data/scifact", split="test")
    dataset.notes                                       # what is odd about it, counted
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crisp_rag.errors import DatasetError, InvalidInputError

_WHOLE_NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
TREC_HIGHEST_GRADE = 3
UNANSWERABLE = "unanswerable"


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a collection; the title may be empty."""

    title: str
    text: str

    @property
    def encoded_text(self) -> str:
        """What every system reads: the title, a line break, the text; an empty part is left out."""
        return "\n".join(part for part in (self.title, self.text) if part.strip())


@dataclass(frozen=True, slots=True)
class Dataset:
    """A test collection.

    Args:
        name: The folder's name.
        corpus: Documents by id, in file order.
        queries: The split's queries by id, in the order of ``queries.jsonl``.
        qrels: The grade of each judged document by query; just the queries above.
        answers: Reference answers of the queries that have them.
        binary_threshold: The least grade that counts as relevant in metrics that know only yes and no: 1, and 2
            where the split's highest grade is 3, which is TREC's scale: there 1 means "on the topic, no answer".
        unanswerable: Queries by id that no document answers; none of the queries above.
        notes: What is odd about the files and was put right or let pass, counted: one sentence each.
    """

    name: str
    corpus: dict[str, Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    answers: dict[str, list[str]] = field(default_factory=dict)
    binary_threshold: int = 1
    unanswerable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def texts(self) -> tuple[list[str], list[str]]:
        """Ids and encoded texts of the documents that have words; no system can find the others."""
        pairs = [(id_, document.encoded_text) for id_, document in self.corpus.items()]
        kept = [(id_, text) for id_, text in pairs if text]
        return [id_ for id_, _ in kept], [text for _, text in kept]

    def without_missing(self) -> Dataset:
        """The same without judgements of documents that the corpus lacks: nothing can be learned from them."""
        known = {
            query: {document: grade for document, grade in judged.items() if document in self.corpus}
            for query, judged in self.qrels.items()
        }
        return replace(self, qrels=known)


def load_beir(folder: str | Path, split: str = "test", limit_queries: int | None = None) -> Dataset:
    """Read a collection.

    Args:
        folder: Where it lies.
        split: Which ``qrels/<split>.tsv``; the queries are those that it judges.
        limit_queries: Take the first so many of them in the order of ``queries.jsonl``, and as many unanswerable
            ones; None for all.

    Raises:
        DatasetError: naming the file and the line, if a file is missing or malformed, an id is given to two texts, a
            document is judged in two ways, or the judgements name a query that is not there, or no document that is.
            Single documents that are not there are counted in ``notes``: they cannot be found, and count as such.
        InvalidInputError: if ``limit_queries`` is below 1.
    """
    if limit_queries is not None and limit_queries < 1:
        raise InvalidInputError(f"limit_queries must be at least 1, got {limit_queries}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a data set is a folder with corpus.jsonl, queries.jsonl, qrels/.")
    odd: Counter[str] = Counter()
    corpus = read_corpus(folder / "corpus.jsonl", odd)
    lines, queries, answers = _read_queries(folder / "queries.jsonl", odd)
    qrels = _read_qrels(folder / "qrels" / f"{split}.tsv", corpus, queries, odd)
    chosen = [id_ for id_ in queries if id_ in qrels][:limit_queries]
    for id_ in chosen:
        if not queries[id_].strip():
            raise DatasetError(f"{folder / 'queries.jsonl'}, line {lines[id_]}: the query {id_!r} has no words.")
    declined = folder / "qrels" / f"{UNANSWERABLE}.tsv"
    there = _packed(declined).is_file() and split != UNANSWERABLE
    hopeless = _read_qrels(declined, corpus, queries, odd) if there else {}
    unanswerable = [id_ for id_ in queries if id_ in hopeless and id_ not in qrels and queries[id_].strip()][:limit_queries]
    highest = max(grade for judged in qrels.values() for grade in judged.values())
    return Dataset(
        name=folder.resolve().name,
        corpus=corpus,
        queries={id_: queries[id_] for id_ in chosen},
        qrels={id_: qrels[id_] for id_ in chosen},
        answers={id_: answers[id_] for id_ in chosen if id_ in answers},
        binary_threshold=2 if highest == TREC_HIGHEST_GRADE else 1,
        unanswerable={id_: queries[id_] for id_ in unanswerable},
        notes=tuple(f"{count} {what}." for what, count in odd.items()),
    )


def read_corpus(path: Path, odd: Counter[str] | None = None) -> dict[str, Document]:
    """The documents of a ``corpus.jsonl`` by id, in file order.

    Args:
        path: The file; the same name with ``.gz`` is taken where it is not there.
        odd: Counts what was put right.

    Raises:
        DatasetError: naming the file and the line, if it is missing, malformed or without words.
    """
    corpus: dict[str, Document] = {}
    odd = Counter() if odd is None else odd
    for line, id_, row in _rows(path, odd):
        document = Document(_string(path, line, row, "title", default=""), _string(path, line, row, "text"))
        if corpus.setdefault(id_, document) != document:
            raise DatasetError(f"{path}, line {line}: the id {id_!r} is there a second time, with another text.")
        odd[f"lines of {path.name} repeat a document and were left out"] += corpus[id_] is not document
    if not any(document.encoded_text for document in corpus.values()):
        raise DatasetError(f"{path} has no document with words in it.")
    return corpus


def _read_queries(path: Path, odd: Counter[str]) -> tuple[dict[str, int], dict[str, str], dict[str, list[str]]]:
    """Line numbers, texts and answers by query id."""
    lines: dict[str, int] = {}
    queries: dict[str, str] = {}
    answers: dict[str, list[str]] = {}
    for line, id_, row in _rows(path, odd):
        text = _string(path, line, row, "text")
        if queries.get(id_, text) != text:
            raise DatasetError(f"{path}, line {line}: the id {id_!r} is there a second time, with another text.")
        odd[f"lines of {path.name} repeat a query and were left out"] += id_ in queries
        lines.setdefault(id_, line)
        queries[id_] = text
        given = row.get("answers")
        if given is None:
            continue
        if not isinstance(given, list) or not all(isinstance(answer, str) for answer in given):
            raise DatasetError(f"{path}, line {line}: 'answers' must be a list of strings.")
        answers[id_] = given
    return lines, queries, answers


def _read_qrels(
    path: Path, corpus: dict[str, Document], queries: dict[str, str], odd: Counter[str]
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    missing = 0
    for line, text in _lines(path):
        query, document, grade = _judgement(path, line, text)
        if not _WHOLE_NUMBER.fullmatch(grade):
            if line == 1:  # the header
                continue
            raise DatasetError(f"{path}, line {line}: a grade is a whole number, got {grade!r}.")
        if query not in queries:
            raise DatasetError(f"{path}, line {line}: there is no query {query!r} in queries.jsonl.")
        # ArguAna's judgements name documents that its corpus lacks: they stay, as what nobody can find.
        missing += document not in corpus
        value = int(float(grade))
        judged = qrels.setdefault(query, {})
        if judged.get(document, value) != value:
            raise DatasetError(f"{path}, line {line}: query {query!r} and document {document!r} are judged twice.")
        odd[f"lines of {path.name} repeat a judgement and were left out"] += document in judged
        judged[document] = value
    if not qrels:
        raise DatasetError(f"{path} has no judgements.")
    if not any(document in corpus for judged in qrels.values() for document in judged):
        raise DatasetError(f"{path} judges no document of corpus.jsonl: these files do not belong together.")
    odd[f"judgements of {path.name} name a document that corpus.jsonl lacks and no system can find"] += missing
    for what in [what for what, count in odd.items() if not count]:
        del odd[what]
    return qrels


def _judgement(path: Path, line: int, text: str) -> tuple[str, str, str]:
    """Query, document and grade: three columns with tabs between, or TREC's four, the second of which says nothing."""
    fields = [part.strip() for part in text.split("\t")] if "\t" in text else text.split()
    if len(fields) == 4:
        return fields[0], fields[2], fields[3]
    if len(fields) == 3:
        return fields[0], fields[1], fields[2]
    raise DatasetError(
        f"{path}, line {line}: expected query id, document id and grade with tabs between, or TREC's four columns, got "
        f"{text[:80]!r}."
    )


def _rows(path: Path, odd: Counter[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line number, id and object of each line of a JSON lines file."""
    for line, text in _lines(path):
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DatasetError(f"{path}, line {line}: this is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {line}: expected a JSON object, got {text[:80]!r}.")
        id_ = row.get("_id")
        if isinstance(id_, bool) or not isinstance(id_, (str, int)) or not str(id_).strip():
            raise DatasetError(f"{path}, line {line}: '_id' must be a string that is not empty, got {id_!r}.")
        if _SURROGATE.search(str(id_)):
            raise DatasetError(f"{path}, line {line}: '_id' {id_!r} holds half a character (a lone surrogate).")
        if "\\u" in text or "\\U" in text:
            row = {key: _whole(value, path, odd) for key, value in row.items()}
        yield line, str(id_).strip(), row


def _whole(value: Any, path: Path, odd: Counter[str]) -> Any:
    """A text, or a list of them, without lone surrogates, which no tokenizer takes."""
    if isinstance(value, list):
        return [_whole(each, path, odd) for each in value]
    if not isinstance(value, str) or not _SURROGATE.search(value):
        return value
    text, count = _SURROGATE.subn("\N{REPLACEMENT CHARACTER}", value)
    odd[f"halves of characters (lone surrogates) in {path.name} were replaced by \N{REPLACEMENT CHARACTER}"] += count
    return text


def _packed(path: Path) -> Path:
    """The file, or the same packed where there is only that."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, numbered from 1."""
    path = _packed(path)
    if not path.is_file():
        raise DatasetError(f"{path} is missing.")
    number = 0
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, after line {number}: this is not UTF-8: {error}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def _string(path: Path, line: int, row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise DatasetError(f"{path}, line {line}: {key!r} must be a string, got {value!r}.")
    return value
