"""A corpus of small files made for measuring readers: five or more of each kind, with the strings that have to be found.

    for file in corpus():
        file.kind, file.name, file.data, file.expected, file.forbidden

Texts and names are made up.  The tests read it with our loaders, ``benchmarks/loaders.py`` with other libraries too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# ruff: noqa: E501  # files in one line each


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A file, what its text holds, and what it does not.

    Args:
        kind: Its format.
        name: With its extension.
        data: Its bytes.
        expected: Strings of its text, blanks as single ones.
        forbidden: Strings that must not be in it.
    """

    kind: str
    name: str
    data: bytes
    expected: tuple[str, ...]
    forbidden: tuple[str, ...] = ()


def corpus() -> list[CorpusFile]:
    """All files."""
    files: list[CorpusFile] = []
    for make in (
        _txt,
        _md,
        _html,
        _docx,
        _pdf,
        _pptx,
        _xlsx,
        _csv,
        _tsv,
        _json,
        _jsonl,
        _ipynb,
        _epub,
        _rst,
        _eml,
        _code,
        _zip,
    ):
        kind = make.__name__.strip("_")
        for number, (suffix, data, expected, *forbidden) in enumerate(make()):
            name = suffix if "." in suffix[1:] else f"{kind}{number}{suffix}"
            content = data.encode() if isinstance(data, str) else data
            files.append(CorpusFile(kind, name, content, tuple(expected), tuple(forbidden[0]) if forbidden else ()))
    return files


Made = Iterator[tuple[Any, ...]]


def _txt() -> Made:
    yield ".txt", "The ferry to Aldersund leaves at 07:40 and takes 35 minutes.\n", ["leaves at 07:40 and takes 35 minutes."]
    yield ".txt", "Der Kurs für Anfänger kostet 45 €.".encode("cp1252"), ["Der Kurs für Anfänger kostet 45 €."]
    yield ".txt", "Freezer at -18°C, fee £40, 2½ hours.".encode("cp1252"), ["-18°C", "£40", "2½ hours"]
    yield ".txt", "Открыто с девяти до шести.".encode("koi8-r"), ["Открыто с девяти до шести."]
    yield ".txt", "Größe für Köln – früh. ".encode() * 4 + b"Caf\xe9", ["Größe für Köln – früh.", "Caf"]
    yield ".txt", "Keys are kept in drawer 4.".encode("utf-16"), ["Keys are kept in drawer 4."]
    yield ".txt", "図書館は九時に開きます。".encode("shift_jis"), ["図書館は九時に開きます。"]


def _md() -> Made:
    yield (
        ".md",
        "---\r\ntitle: Leave policy\r\n---\r\nStaff may carry over six days.\r\n",
        ["Staff may carry over six days."],
    )
    yield ".md", "# Server\n\n```sh\n# port 8081 by default\nrun --fast\n```\n", ["# port 8081 by default", "run --fast"]
    yield ".md", "| Town | Depot |\n|---|---|\n| Elm | D1 |\n", ["| Elm | D1 |"]
    yield ".markdown", "Intro\n=====\n\n1. First\n2. Second\n", ["1. First", "2. Second"]
    yield ".md", "> Quoted.\n\n* Item *one*\n* Item two\n", ["Quoted.", "Item two"]


def _html() -> Made:
    yield (
        ".html",
        "<table><tr><th>Region<th>Town<tr><td rowspan=2>North<td>Alder<tr><td>Birch</table>",
        ["| North | Birch |"],
    )
    yield (
        ".html",
        "<p>It holds 10<sup>6</sup> litres. The fee is 40<sup>1</sup> euros.<p><sup>1</sup> From March.",
        ["10^6 litres", "40 euros"],
        ["106", "401"],
    )
    yield (
        ".html",
        "<p>The price is 30 euros.<div style='display:none'>Old price 22.</div><p hidden>Draft 19.",
        ["The price is 30 euros."],
        ["22", "19"],
    )
    yield (
        ".html",
        "<!DOCTYPE html><html><head><title>Parking</title><body><p>The fee is four euros.<p>Bikes are free.",
        ["The fee is four euros.", "Bikes are free."],
    )
    yield (
        ".html",
        "<meta charset=iso-8859-1><p>“open” – the café costs 5 €".encode("cp1252"),
        ["“open” – the café costs 5 €"],
    )
    yield (
        ".html",
        "<ul><li>Rope of 30 m<li>Helmet<li>Lamp</ul><dl><dt>Fee<dd>Two euros</dl>",
        ["- Rope of 30 m - Helmet - Lamp", "Fee: Two euros"],
    )
    yield (
        ".xhtml",
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><script src="a"/></head><body><p>The lift carries eight people.</p></body></html>',
        ["The lift carries eight people."],
        ["version"],
    )
    yield (
        ".htm",
        "<nav><a href=/>Home</a><h1>Fees</h1><p>A night costs twelve euros.</p>",
        ["A night costs twelve euros."],
        ["Home"],
    )
    yield ".html", "<div>" * 2000 + "<pre># port 9090\nrun</pre>", ["# port 9090 run"]


W = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def word(body: str) -> bytes:
    """A Word file of a body."""
    types = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    return zipped({
        "[Content_Types].xml": f'{HEAD}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="{types}"/></Types>',
        "_rels/.rels": f'{HEAD}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f"{HEAD}<w:document {W}><w:body>{body}</w:body></w:document>",
    })  # fmt: skip


def zipped(members: dict[str, str | bytes]) -> bytes:
    """A ZIP package."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return data.getvalue()


def _r(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def _docx() -> Made:
    yield (
        ".docx",
        word(
            f"<w:p>{_r('Contract number ')}<w:fldSimple w:instr='X'>{_r('K-7781')}</w:fldSimple>{_r(' of ')}<w:sdt><w:sdtContent>{_r('3 May 2024')}</w:sdtContent></w:sdt>{_r('.')}</w:p>"
        ),
        ["Contract number K-7781 of 3 May 2024."],
    )
    yield (
        ".docx",
        word(
            f"<w:p><w:r><w:ruby><w:rt>{_r('とうきょう')}</w:rt><w:rubyBase>{_r('東京')}</w:rubyBase></w:ruby></w:r>{_r('支社')}</w:p>"
        ),
        ["東京支社"],
    )
    yield (
        ".docx",
        word(f"<w:p>{_r('The rate is ')}<w:rPr/><m:oMath><m:r><m:t>r = i / 12</m:t></m:r></m:oMath>{_r(' a month.')}</w:p>"),
        ["The rate is r = i / 12 a month."],
    )
    cell = "<w:tc>{}<w:p>{}</w:p></w:tc>"
    rows = [
        ("", "Region", "", "Town"),
        ("<w:tcPr><w:vMerge w:val='restart'/></w:tcPr>", "North", "", "Alder"),
        ("<w:tcPr><w:vMerge/></w:tcPr>", "", "", "Birch"),
    ]
    yield (
        ".docx",
        word(
            "<w:tbl>"
            + "".join(f"<w:tr>{cell.format(a, _r(b))}{cell.format(c, _r(d))}</w:tr>" for a, b, c, d in rows)
            + "</w:tbl><w:p/>"
        ),
        ["| North | Birch |"],
    )
    yield (
        ".docx",
        word(
            f"<w:p>{_r('Fee ')}<w:ins w:id='1'>{_r('30')}</w:ins><w:del w:id='2'><w:r><w:delText>22</w:delText></w:r></w:del>{_r(' euros, 10')}{_r('6', '<w:vertAlign w:val=' + chr(34) + 'superscript' + chr(34) + '/>')}{_r(' litres')}</w:p>"
        ),
        ["Fee 30 euros, 10^6 litres"],
        ["22", "106"],
    )
    yield (
        ".docx",
        word(
            f"<w:p><w:bdo w:val='rtl'>{_r('BDO text')}</w:bdo></w:p><w:customXml w:element='y'><w:p>{_r('Custom text.')}</w:p></w:customXml>"
        ),
        ["BDO text", "Custom text."],
    )


def drawn(draw: Callable[[Any], Any], **options: Any) -> bytes:
    """A PDF file that a function draws with reportlab."""
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, **options)
    draw(canvas)
    canvas.save()
    return data.getvalue()


def _pdf() -> Made:
    from reportlab.lib.pdfencrypt import StandardEncryption

    yield (
        ".pdf",
        drawn(
            lambda canvas: canvas.drawString(72, 700, "The vault code is kept by the treasurer."),
            encrypt=StandardEncryption(""),
        ),
        ["The vault code is kept by the treasurer."],
    )

    def form(canvas: Any) -> None:
        canvas.drawString(72, 700, "Berth:")
        canvas.acroForm.textfield(name="b", x=160, y=695, width=200, height=20, value="B 17, north pier")

    yield ".pdf", drawn(form), ["Berth: B 17, north pier"]
    left = [
        "The harbour opens at six in the",
        "morning and closes at ten. Boats",
        "above nine metres need a pilot,",
        "who is called by radio at least",
        "an hour before they arrive here.",
    ]
    right = [
        "Fees are paid at the office near",
        "the crane. A night costs twelve",
        "euros, and water is free. In the",
        "winter months nobody is there,",
        "and a box takes the envelopes.",
    ]

    def columns(canvas: Any) -> None:
        for number, (one, other) in enumerate(zip(left, right)):
            canvas.drawString(72, 700 - 16 * number, one)
            canvas.drawString(320, 700 - 16 * number, other)

    yield (
        ".pdf",
        drawn(columns),
        ["Boats above nine metres need a pilot, who is called", "A night costs twelve euros, and water is free."],
    )

    def running(canvas: Any) -> None:
        for number, fact in enumerate(
            ["The fee is four euros.", "Bicycles are free.", "Dogs stay outside.", "The gate closes at ten."], 1
        ):
            canvas.drawString(72, 800, "Town of Alder - Rules 2024")
            canvas.drawString(72, 700, fact)
            canvas.drawString(72, 40, f"Page {number} of 4")
            canvas.showPage()

    yield ".pdf", drawn(running), ["Bicycles are free. Dogs stay outside."], ["Town of Alder", "Page 2"]

    def note(canvas: Any) -> None:
        canvas.drawString(72, 700, "The rest is text.")
        canvas.textAnnotation("Paid in cash on 3 May.", [300, 600, 320, 620])

    yield ".pdf", drawn(note), ["The rest is text.", "Paid in cash on 3 May."]

    def table(canvas: Any) -> None:
        for number, row in enumerate([("Region", "Town", "Depot"), ("North", "Alder", "D1"), ("North", "Birch", "D2")]):
            for column, cell in enumerate(row):
                canvas.drawString(72 + 150 * column, 700 - 16 * number, cell)

    yield ".pdf", drawn(table), ["North Birch D2"]


def slides(make: Callable[[Any], Any]) -> bytes:
    """A PowerPoint file that a function makes with python-pptx."""
    import pptx

    show = pptx.Presentation()
    make(show)
    data = io.BytesIO()
    show.save(data)
    return data.getvalue()


def _pptx() -> Made:
    from pptx.util import Inches

    def titled(show: Any, title: str) -> Any:
        slide = show.slides.add_slide(show.slide_layouts[5])
        slide.shapes.title.text = title
        return slide

    def bullets(show: Any) -> None:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = "Harbour fees"
        slide.placeholders[1].text = "A night costs twelve euros\nWater is free"

    yield ".pptx", slides(bullets), ["# Harbour fees", "- A night costs twelve euros - Water is free"]

    def table(show: Any) -> None:
        shape = titled(show, "Depots").shapes.add_table(3, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
        for row, cells in enumerate([("Region", "Town"), ("North", "Alder"), ("", "Birch")]):
            for column, text in enumerate(cells):
                shape.cell(row, column).text = text
        shape.cell(1, 0).merge(shape.cell(2, 0))

    yield ".pptx", slides(table), ["| North | Birch |"]

    def notes(show: Any) -> None:
        titled(show, "Plan").notes_slide.notes_text_frame.text = "Say that the crane is rented until May."

    yield ".pptx", slides(notes), ["Say that the crane is rented until May."]

    def chart(show: Any) -> None:
        from pptx.chart.data import CategoryChartData
        from pptx.enum.chart import XL_CHART_TYPE

        data = CategoryChartData()
        data.categories = ["2023", "2024"]
        data.add_series("Visitors", (1200, 1350))
        titled(show, "Visitors").shapes.add_chart(
            XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(2), Inches(4), Inches(3), data
        )

    yield ".pptx", slides(chart), ["| 2024 | 1350 |"]

    def grouped(show: Any) -> None:
        group = titled(show, "Groups").shapes.add_group_shape()
        group.shapes.add_textbox(Inches(1), Inches(2), Inches(3), Inches(1)).text_frame.text = "The pilot is on channel 12."

    yield ".pptx", slides(grouped), ["The pilot is on channel 12."]


def workbook(make: Callable[[Any], Any]) -> bytes:
    """An Excel file that a function makes with openpyxl."""
    import openpyxl

    book = openpyxl.Workbook()
    make(book)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def _xlsx() -> Made:
    import datetime

    def simple(book: Any) -> None:
        book.active.title = "Prices"
        for row in (["Item", "Fee"], ["Book", 2], ["Map", 3.5]):
            book.active.append(row)

    yield ".xlsx", workbook(simple), ["Item: Book; Fee: 2", "Item: Map; Fee: 3.5"]

    def merged(book: Any) -> None:
        for row in (["Region", "Town", "Depot"], ["North", "Alder", "D1"], [None, "Birch", "D2"]):
            book.active.append(row)
        book.active.merge_cells("A2:A3")

    yield ".xlsx", workbook(merged), ["Region: North; Town: Birch; Depot: D2"]

    def shown(book: Any) -> None:
        for row in (["Name", "Share", "Price", "Since"], ["Elm", 0.19, 12.5, datetime.date(2024, 5, 3)]):
            book.active.append(row)
        book.active["B2"].number_format, book.active["C2"].number_format = "0%", '#,##0.00 "€"'

    yield ".xlsx", workbook(shown), ["Share: 19%; Price: 12.50 €; Since: 2024-05-03"]

    def titled(book: Any) -> None:
        for row in (["Depots of the north"], [], ["Town", "Depot"], ["Elm", "D1"]):
            book.active.append(row)

    yield ".xlsx", workbook(titled), ["Depots of the north", "Town: Elm; Depot: D1"]

    def hidden(book: Any) -> None:
        book.active.append(["Visible words", "here"])
        other = book.create_sheet("Drafts")
        other.append(["Draft price 19"])
        other.sheet_state = "hidden"
        book.create_sheet("More").append(["Second sheet", "too"])

    yield ".xlsx", workbook(hidden), ["Visible words", "Second sheet"], ["Draft price"]


def _csv() -> Made:
    yield ".csv", "Region,Town,Depot\nNorth,Alder,D1\nNorth,Birch,D2\n", ["Region: North; Town: Birch; Depot: D2"]
    yield ".csv", "Stadt;Größe\r\nKöln;5,3\r\nUlm;4,1\r\n".encode("cp1252"), ["Stadt: Köln; Größe: 5,3"]
    yield ".csv", 'name,text\nElm,"A ""large"" depot,\nby the river"\n', ['name: Elm; text: A "large" depot, by the river']
    yield ".csv", "sep=|\na|b\n1|2\n", ["a: 1; b: 2"], ["sep="]
    yield ".csv", "1,2,3\n4,5,6\n", ["1; 2; 3", "4; 5; 6"]
    yield ".csv", "\ufeffTown,Fee\nElm,£5\n,\n", ["Town: Elm; Fee: £5"]


def _tsv() -> Made:
    yield ".tsv", "Town\tDepot\nElm\tD1\n", ["Town: Elm; Depot: D1"]
    yield ".tsv", "Town\tNote\nElm\topen, always\n", ["Town: Elm; Note: open, always"]
    yield ".tab", "A\tB\r\n1\t\r\n", ["A: 1"]
    yield ".tsv", "Ort\tGröße\nKöln\t5\n".encode("utf-16"), ["Ort: Köln; Größe: 5"]
    yield ".tsv", 'Town\tQuote\nElm\t"two\nlines"\n', ["Town: Elm; Quote: two lines"]


def _json() -> Made:
    yield (
        ".json",
        json.dumps([{"town": "Elm", "depot": {"north": "D1"}, "tags": ["a", "b"]}]),
        ["town: Elm; depot.north: D1; tags: a, b"],
    )
    yield ".json", json.dumps({"port": 8081, "fast": True, "none": None}), ["port: 8081; fast: true"], ["none"]
    yield (
        ".json",
        json.dumps({"title": "Fees", "rows": [{"item": "Book", "fee": 2}, {"item": "Map", "fee": 3}]}),
        ["rows: item: Map; fee: 3"],
    )
    yield ".json", json.dumps({"größe": "fünf"}).encode("utf-16"), ["größe: fünf"]
    yield ".json", '"A plain text."', ["A plain text."]


def _jsonl() -> Made:
    yield (
        ".jsonl",
        '{"q": "How long?", "a": "Five days."}\n{"q": "Where?", "a": "Elm."}\n',
        ["q: How long?; a: Five days.", "q: Where?; a: Elm."],
    )
    yield ".jsonl", '{"a": 1}\nnot json\n{"a": 2}\n', ["a: 1", "a: 2"]
    yield ".ndjson", '{"text": "One\u2028two"}\n', ["text: One two"]
    yield ".jsonl", '\ufeff{"a": {"b": [1, 2]}}\n', ["a.b: 1, 2"]
    yield ".jsonl", '["x", "y"]\n"z"\n', ["x, y", "z"]


def notebook(*cells: dict[str, Any]) -> str:
    """A Jupyter notebook of these cells."""
    return json.dumps(
        {"cells": list(cells), "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    )


def _ipynb() -> Made:
    code = {
        "cell_type": "code",
        "source": ["# the port is 8081\n", "run()"],
        "outputs": [{"output_type": "stream", "text": ["started\n"]}],
    }
    yield (
        ".ipynb",
        notebook({"cell_type": "markdown", "source": "# Server\n\nHow it starts."}, code),
        ["# Server", "How it starts.", "# the port is 8081", "started"],
    )
    yield (
        ".ipynb",
        notebook(
            {
                "cell_type": "code",
                "source": "df",
                "outputs": [{"data": {"text/html": ["<table><tr><th>Town<th>Fee<tr><td>Elm<td>2</table>"]}}],
            }
        ),
        ["| Elm | 2 |"],
    )
    yield (
        ".ipynb",
        notebook(
            {"cell_type": "code", "source": "x", "outputs": [{"ename": "E", "traceback": ["\x1b[31mE: no port\x1b[0m"]}]}
        ),
        ["E: no port"],
        ["\x1b"],
    )
    yield ".ipynb", notebook({"cell_type": "raw", "source": "Raw words."}), ["Raw words."]
    yield (
        ".ipynb",
        json.dumps(
            {
                "nbformat": 3,
                "worksheets": [
                    {
                        "cells": [
                            {"cell_type": "heading", "level": 2, "source": "Fees"},
                            {"cell_type": "code", "input": "pay(12)", "outputs": []},
                        ]
                    }
                ],
            }
        ),
        ["## Fees", "pay(12)"],
    )


def book(*chapters: str, opf: str = "OEBPS/book.opf", extra: dict[str, str | bytes] | None = None) -> bytes:
    """An e-book of these chapters."""
    folder = opf.rpartition("/")[0]
    place = f"{folder}/" if folder else ""
    items = "".join(
        f'<item id="c{n}" href="c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="{opf}"/></rootfiles></container>',
        opf: f'<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The harbour</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>',
    }
    members.update({f"{place}c {n}.xhtml": text for n, text in enumerate(chapters)})
    return zipped({**members, **(extra or {})})


def _epub() -> Made:
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    yield (
        ".epub",
        book(page.format("<h1>One</h1><p>The crane is old.</p>"), page.format("<h1>Two</h1><p>It lifts 4 t.</p>")),
        ["# One The crane is old. # Two It lifts 4 t."],
    )
    yield ".epub", book("<p>No declaration, <i>no</i> head.", opf="book.opf"), ["No declaration, *no* head."]
    yield ".epub", book(page.format("<table><tr><th>A<th>B</th></tr><tr><td>1</td><td>2</td></tr></table>")), ["| 1 | 2 |"]
    yield ".epub", book(page.format("<p>10<sup>6</sup> litres</p>")), ["10^6 litres"]
    yield (
        ".epub",
        book(
            page.format("<p>Fonts may be locked.</p>"),
            extra={
                "META-INF/encryption.xml": '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference URI="OEBPS/a.otf"/></encryption>'
            },
        ),
        ["Fonts may be locked."],
    )


def _rst() -> Made:
    yield (
        ".rst",
        "Harbour\n=======\n\nFees\n----\n\nA night costs **twelve** euros.\n",
        ["# Harbour", "## Fees", "A night costs **twelve** euros."],
    )
    yield (
        ".rst",
        "See :ref:`the fees <fees>` and :func:`pay`.\n\n.. tab:: One\n\n   Content of a tab.\n",
        ["See the fees and pay.", "Content of a tab."],
    )
    yield (
        ".rst",
        ".. code-block:: sh\n   :linenos:\n\n   # port 8081\n   run\n\nDone::\n\n   x = 1\n",
        ["# port 8081 run", "x = 1"],
    )
    yield ".rst", "=====  =====\nTown   Depot\n=====  =====\nElm    D1\n=====  =====\n", ["| Elm | D1 |"]
    yield (
        ".rst",
        ".. include:: /etc/passwd\n.. raw:: html\n\n   <b>raw</b>\n\n.. deprecated:: 3.1\n   Use :class:`~a.Crane`.\n\nEnd.\n",
        ["3.1", "Use a.Crane.", "End."],
        ["root:"],
    )


def _eml() -> Made:
    from email.message import EmailMessage

    def mail(subject: str = "Berth 17", **parts: Any) -> EmailMessage:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = subject, "Mira Holt <mira@example.org>", "office@example.org"
        message["Date"] = "Fri, 03 May 2024 10:00:00 +0000"
        message.set_content(parts.get("text", "The berth is paid until June."))
        return message

    yield ".eml", mail().as_bytes(), ["Subject: Berth 17", "From: Mira Holt", "The berth is paid until June."]
    with_html = mail("Größe für Köln")
    with_html.add_alternative("<p>The berth is <b>paid</b>.</p>", subtype="html")
    yield ".eml", with_html.as_bytes(), ["Subject: Größe für Köln", "The berth is paid until June."]
    attached = mail()
    attached.add_attachment(b"Town,Fee\nElm,5\n", maintype="text", subtype="csv", filename="fees.csv")
    yield ".eml", attached.as_bytes(), ["The berth is paid", "Town: Elm; Fee: 5"]
    yield (
        ".eml",
        b"Subject: Old\nFrom: a@b.c\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nIt costs 5 =80, caf=E9.\n",
        ["It costs 5 €, café."],
    )
    yield (
        ".eml",
        b"From: a@b.c\nSubject: =?utf-8?b?R3LDtsOfZQ==?=\nContent-Type: text/html\n\n<p>Only <i>HTML</i> here.</p>",
        ["Subject: Größe", "Only *HTML* here."],
    )


def _code() -> Made:
    yield (
        "crane.py",
        '"""Lifts things."""\n\nLIMIT = 4\n\n\nclass Crane:\n    def lift(self, tons):\n        # four tons at most\n        return tons <= LIMIT\n',
        ["Lifts things.", "# four tons at most"],
    )
    yield (
        "crane.js",
        "// the port is 8081\nexport const open = (gate) => gate + 1;\nfunction close() { return 0; }\n",
        ["// the port is 8081", "function close()"],
    )
    yield (
        "Crane.java",
        "public class Crane {\n    /* at most */\n    public int lift(int tons) {\n        return 4;\n    }\n}\n",
        ["public int lift(int tons)"],
    )
    yield "crane.go", "package main\n\nfunc (c *Crane) Lift() int {\n\treturn 4\n}\n", ["func (c *Crane) Lift() int {"]
    yield "crane.toml", "[server]\nport = 8081\n\n[crane]\nlimit = 4\n", ["port = 8081", "limit = 4"]
    yield (
        "crane.sql",
        "CREATE TABLE depots (town TEXT);\n-- one a town\nCREATE VIEW open AS SELECT 1;\n",
        ["CREATE TABLE depots", "-- one a town"],
    )


def _zip() -> Made:
    yield (
        ".zip",
        zipped({"a/fees.md": "# Fees\n\nTwelve euros.", "b.txt": "Keys in drawer 4."}),
        ["Twelve euros.", "Keys in drawer 4."],
    )
    yield ".zip", zipped({"a.html": "<p>A page.</p>", "b.png": b"\x89PNG", ".hidden.txt": "hidden"}), ["A page."], ["hidden"]
    yield (
        ".zip",
        zipped({"inner.zip": zipped({"deep.txt": "Deep words."}), "t.csv": "Town,Fee\nElm,5\n"}),
        ["Deep words.", "Town: Elm; Fee: 5"],
    )
    yield ".zip", zipped({"../../up.txt": "Above.", "__MACOSX/._a.txt": "junk"}), ["Above."], ["junk"]
    yield ".zip", zipped({"broken.pdf": b"%PDF-1.4 no", "ok.txt": "Still read."}), ["Still read."]
