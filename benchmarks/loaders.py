"""What readers make of files: the corpus of small files by ours and by other libraries, and how fast ours is.

    python benchmarks/loaders.py                # writes benchmarks/results/loaders.json, prints Markdown tables
    python benchmarks/loaders.py --cases DIR    # other files too: their expected strings stand in DIR/expected.json

A file counts as read if every expected string is in the text and no forbidden one, blanks aside.  For other libraries what
is only written differently counts too: marks of Markdown are taken off, a table's cells may stand without bars.  A library
that is not installed is left out.  Run: pip install 'crisp-rag[dev]' pypdf html5lib docx2python html-to-markdown chardet
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from file_corpus import CorpusFile, corpus

RESULTS = Path(__file__).parent / "results" / "loaders.json"
SECONDS = 3.0
"""Of reading one format over and over, for its speed."""
BEFORE = {"txt": "charset-normalizer", "md": "charset-normalizer", "html": "markdownify", "docx": "mammoth", "pdf": "pypdf"}
"""What read these formats before; the others were skipped."""


def ours(file: CorpusFile) -> str:
    """crisp-rag's text of a file and the files inside it."""
    from crisp_rag.pipelines.loading import parse_file

    document = parse_file(f"/docs/{file.name}", file.data)
    return "\n".join(each.text for each in (document, *document.members))


def _charset_normalizer(data: bytes) -> str:
    import charset_normalizer

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return str(charset_normalizer.from_bytes(data).best())


def _chardet(data: bytes) -> str:
    import chardet

    return data.decode(chardet.detect(data)["encoding"] or "utf-8", "replace")


def _chardetng(data: bytes) -> str:
    import chardetng_py

    detector = chardetng_py.EncodingDetector()
    detector.feed(data, last=True)
    return data.decode(detector.guess(tld=None, allow_utf8=True), "replace")


def _markdownify(data: bytes) -> str:
    import bs4
    import markdownify

    soup = bs4.BeautifulSoup(data, "html.parser")
    for tag in soup(["script", "style", "nav", "head"]):
        tag.decompose()
    return markdownify.MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(soup)


def _lxml(data: bytes) -> str:
    from lxml import html

    root = html.document_fromstring(data)
    for node in list(root.iter("script", "style", "nav", "head")):
        node.drop_tree()
    return root.text_content()


def _html5lib(data: bytes) -> str:
    import html5lib

    root = html5lib.parse(data, namespaceHTMLElements=False)
    return " ".join(root.find("body").itertext())


def _selectolax(data: bytes) -> str:
    from selectolax.lexbor import LexborHTMLParser

    return LexborHTMLParser(data).body.text(separator=" ")


def _html_to_markdown(data: bytes) -> str:
    import html_to_markdown

    converted = html_to_markdown.convert(data.decode("utf-8", "replace"))
    return str(getattr(converted, "content", converted))


def _mammoth(data: bytes) -> str:
    import mammoth

    return _markdownify(mammoth.convert_to_html(io.BytesIO(data)).value.encode())


def _python_docx(data: bytes) -> str:
    import docx

    document = docx.Document(io.BytesIO(data))
    rows = ["| " + " | ".join(cell.text for cell in row.cells) + " |" for table in document.tables for row in table.rows]
    return "\n".join([*(paragraph.text for paragraph in document.paragraphs), *rows])


def _docx2python(data: bytes) -> str:
    from docx2python import docx2python

    with docx2python(io.BytesIO(data)) as found:
        return found.text


def _pypdf(data: bytes) -> str:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted:
        reader.decrypt("")
    return "\n\n".join(page.extract_text() for page in reader.pages)


def _pypdfium2(data: bytes) -> str:
    import pypdfium2

    with pypdfium2.PdfDocument(data) as document:
        return "\n\n".join(page.get_textpage().get_text_bounded() for page in document)


LIBRARIES: dict[str, dict[str, Callable[[bytes], str]]] = {
    "txt": {"charset-normalizer": _charset_normalizer, "chardet": _chardet, "chardetng-py": _chardetng},
    "md": {"charset-normalizer": _charset_normalizer, "chardet": _chardet, "chardetng-py": _chardetng},
    "html": {
        "markdownify": _markdownify, "lxml": _lxml, "html5lib": _html5lib, "selectolax": _selectolax,
        "html-to-markdown": _html_to_markdown,
    },
    "docx": {"mammoth": _mammoth, "python-docx": _python_docx, "docx2python": _docx2python},
    "pdf": {"pypdf": _pypdf, "pypdfium2": _pypdfium2},
}  # fmt: skip


def read_right(text: str, file: CorpusFile, lenient: bool) -> bool:
    """Whether a text holds what it should and nothing that it should not."""

    def plain(part: str) -> str:
        return " ".join((re.sub(r"[|*`#\\>-]|(?<=\d)\.(?= )", " ", part) if lenient else part).split())

    words = plain(text)
    return all(plain(each) in words for each in file.expected) and not any(plain(each) in words for each in file.forbidden)


def measure(files: list[CorpusFile]) -> dict[str, dict[str, dict[str, Any]]]:
    """Kind to reader to the files that it read right, of how many."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in dict.fromkeys(file.kind for file in files):
        own = [file for file in files if file.kind == kind]
        readers: dict[str, Callable[[CorpusFile], str]] = {"crisp-rag": ours}
        for name, read in LIBRARIES.get(kind, {}).items():
            readers[name] = lambda file, read=read: read(file.data)
        for name, reader in readers.items():
            right, wrong = 0, []
            try:
                for file in own:
                    try:
                        good = read_right(reader(file), file, lenient=name != "crisp-rag")
                    except ImportError:
                        raise
                    except Exception:  # a library that raises has not read the file
                        good = False
                    right += good
                    if not good:
                        wrong.append(file.name)
            except ImportError:
                continue
            found.setdefault(kind, {})[name] = {"right": right, "of": len(own), "wrong": wrong}
    return found


def speeds(files: list[CorpusFile]) -> dict[str, dict[str, float]]:
    """Kind to how fast its files are read and cut into passages, in the process that can be stopped."""
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone
    from crisp_rag.pipelines.loading import SafeReader
    from crisp_rag.pipelines.splitting import PassageSplitter

    splitter = PassageSplitter(AutoTokenizer.from_pretrained(str(default_backbone())))
    found = {}
    with SafeReader() as reader:
        for kind, name, data in larger(files):
            reader.parse(f"/docs/{name}", data)  # its libraries are loaded now
            count, reading, cutting = 0, 0.0, 0.0
            while not count or (reading + cutting < SECONDS and count < 20):
                began = time.perf_counter()
                document = reader.parse(f"/docs/{name}", data)
                read = time.perf_counter()
                for each in (document, *document.members):
                    splitter.split(each)
                cutting += time.perf_counter() - read
                reading += read - began
                count += 1
            size = len(data) / 2**20
            text = sum(len(each.text.encode()) for each in (document, *document.members)) / 2**20
            found[kind] = {
                "file_mib": round(size, 3), "text_mib": round(text, 3),
                "read_seconds_per_file_mib": round(reading / count / size, 3),
                "read_seconds_per_text_mib": round(reading / count / text, 3),
                "cut_seconds_per_text_mib": round(cutting / count / text, 3),
            }  # fmt: skip
    return found


def larger(files: list[CorpusFile]) -> list[tuple[str, str, bytes]]:
    """A file of some hundred kilobytes of text for each kind: kind, name, bytes."""
    import file_corpus as made

    fact = "The ferry {n} to Aldersund leaves at 07:40 and takes {n} minutes, and a ticket costs four euros and {n} cents."
    facts = [fact.format(n=number) for number in range(3000)]
    text = "\n\n".join(facts)
    page = "<h1>Ferries</h1>" + "".join(f"<p>{each}</p>" for each in facts)
    rows = [["Ferry", "Text"], *([str(number), each] for number, each in enumerate(facts))]
    records = [dict(zip(rows[0], row)) for row in rows[1:]]

    def pages(canvas: Any) -> None:
        for first in range(0, 1500, 40):
            for line, each in enumerate(facts[first : first + 40]):
                canvas.drawString(36, 800 - 18 * line, each)
            canvas.showPage()

    def show(presentation: Any) -> None:
        for first in range(0, 1000, 5):
            slide = presentation.slides.add_slide(presentation.slide_layouts[1])
            slide.shapes.title.text = f"Ferries {first}"
            slide.placeholders[1].text = "\n".join(facts[first : first + 5])

    def sheet(book: Any) -> None:
        for row in rows:
            book.active.append(row)

    code = "\n\n".join(f"def ferry_{n}():\n    # {each}\n    return {n}\n" for n, each in enumerate(facts))
    csv = "\n".join(f'{row[0]},"{row[1]}"' for row in rows)
    return [
        ("txt", "a.txt", text.encode()), ("md", "a.md", ("# Ferries\n\n" + text).encode()),
        ("html", "a.html", page.encode()),
        ("docx", "a.docx", made.word("".join(f"<w:p><w:r><w:t>{each}</w:t></w:r></w:p>" for each in facts))),
        ("pdf", "a.pdf", made.drawn(pages)), ("pptx", "a.pptx", made.slides(show)), ("xlsx", "a.xlsx", made.workbook(sheet)),
        ("csv", "a.csv", csv.encode()), ("tsv", "a.tsv", csv.replace(",", "\t", 1).encode()),
        ("json", "a.json", json.dumps(records).encode()), ("jsonl", "a.jsonl", "\n".join(map(json.dumps, records)).encode()),
        ("ipynb", "a.ipynb", made.notebook(*({"cell_type": "markdown", "source": each} for each in facts)).encode()),
        ("epub", "a.epub", made.book(*[page] * 2)), ("rst", "a.rst", ("Ferries\n=======\n\n" + text).encode()),
        ("eml", "a.eml", b"Subject: Ferries\nFrom: a@b.c\n\n" + text.encode()),
        ("code", "a.py", code.encode()),
        ("zip", "a.zip", made.zipped({f"{n}.txt": "\n\n".join(facts[n : n + 100]) for n in range(0, 3000, 100)})),
    ]  # fmt: skip


def given(folder: Path) -> list[CorpusFile]:
    """Files of a folder with ``expected.json``: {path: {"expected": [...], "forbidden": [...]}}."""
    listed = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return [
        CorpusFile(Path(name).suffix.lstrip("."), Path(name).name, (folder / name).read_bytes(), tuple(each["expected"]),
                   tuple(each.get("forbidden", ())))
        for name, each in listed.items()
    ]  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Formats x libraries."""
    lines = ["| format | files | crisp-rag | before | other libraries |", "|---|---|---|---|---|"]
    for kind, readers in found.items():
        own = readers["crisp-rag"]
        before = BEFORE.get(kind)
        was = f"{readers[before]['right']} ({before})" if before and before in readers else "not read"
        others = ", ".join(f"{name} {each['right']}" for name, each in readers.items() if name not in ("crisp-rag", before))
        lines.append(f"| {kind} | {own['of']} | {own['right']} | {was} | {others or '-'} |")
    return "\n".join(lines)


def case_table(found: dict[str, dict[str, dict[str, Any]]], files: list[CorpusFile]) -> str:
    """Cases x libraries, those formats that several libraries read."""
    parts = []
    for kind, readers in found.items():
        if len(readers) > 1:
            parts.append(f"| {kind} | {' | '.join(readers)} |\n|---{'|---' * len(readers)}|")
            for file in files:
                if file.kind == kind:
                    marks = ("-" if file.name in each["wrong"] else "yes" for each in readers.values())
                    parts.append(f"| {file.name} | {' | '.join(marks)} |")
            parts.append("")
    return "\n".join(parts)


def speed_table(found: dict[str, dict[str, float]]) -> str:
    """Formats x seconds."""
    lines = [
        "| format | reading, s per MiB of file | reading, s per MiB of text | cutting, s per MiB of text |",
        "|---|---|---|---|",
    ]
    for kind, each in found.items():
        lines.append(
            f"| {kind} | {each['read_seconds_per_file_mib']:.2f} | {each['read_seconds_per_text_mib']:.2f} "
            f"| {each['cut_seconds_per_text_mib']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=Path, help="a folder of other files, with expected.json")
    parser.add_argument("--only", choices=("read", "speed"), help="measure one of the two, and keep the other as it was")
    arguments = parser.parse_args()
    files = corpus() + (given(arguments.cases) if arguments.cases else [])
    names = sorted({"crisp-rag", *(name for each in LIBRARIES.values() for name in each)})
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if arguments.only and RESULTS.is_file() else {}
    if arguments.only != "speed":
        versions = {name: _version(name) for name in names}
        results |= {"versions": versions, "files": len(files), "read": measure(files)}
    if arguments.only != "read":
        results |= {"machine": _machine(), "speed": speeds(files)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tables = (table(results["read"]), case_table(results["read"], files), speed_table(results["speed"]))
    sys.stdout.write("\n\n".join(tables) + "\n")


def _machine() -> dict[str, Any]:
    """What speeds depend on, as it is now."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(), "load": load}


if __name__ == "__main__":
    main()
