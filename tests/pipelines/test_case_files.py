"""Files as people have them: each kind that was once misread, and others of its kind, give their right value."""

# ruff: noqa: E501  # files in one line each

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading import load_file, parse_file
from crisp_rag.pipelines.loading.html import html_to_markdown

CASES = Path(__file__).parent / "cases"


def text_of(name: str, data: bytes) -> str:
    return parse_file(f"/docs/{name}", data).text


def page(markup: str) -> str:
    return html_to_markdown(markup)[0].strip()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cp1252_en_deg.txt", "Keep the freezer at -18°C and the fridge at 4°C."),
        ("cp1252_en_pound.txt", "The fee is £40 a year for members and £60 for guests."),
        ("cp1252_es.txt", "La piscina abrirá mañana a las ocho. El señor Núñez tiene la llave."),
        ("deg.txt", "Archive rooms are kept at 18°C."),
        ("half.txt", "The course takes 2½ hours."),
    ],
)
def test_windows_1252_is_read_as_such(name, expected):
    assert expected in load_file(CASES / "txt" / name).text


@pytest.mark.parametrize(
    "text",
    [
        "Café", "£5", "18°C", "§ 12 applies", "±3 mm tolerance", "10 µm filter", "Åre", "el niño", "It’s open", "A 2½ hour course",
        "He said “no” – twice.", "Größe: 5 €", "Über Äpfel und Öl", "naïve façade", "© 2019 Example Ltd", "…and so on",
        "L’été dernier, les élèves ont mangé des crêpes.", "Não há pão à noite", "The résumé of Zoë", "price: 30 €/m²",
        "¿Dónde está?", "Smørrebrød på øen", "Temperatures: -5° to 20°", "1 000 £ per year", "¼ cup of milk, ¾ cup of water",
        "Fee: ¥500", "Step 1 • Step 2", "It costs 5¢", "Señora Peña añadió azúcar", "Die Tür ist außen grün",
    ],
)  # fmt: skip
def test_other_texts_in_windows_1252_are_read_as_such(text):
    for whole in (text, f"Members may borrow six books. {text} The rest is in English.\r\n"):
        assert text in text_of("a.txt", whole.encode("cp1252"))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Возврат денег занимает пять дней."), ("cp1251", "Цена 40 рублей"), ("koi8-r", "Библиотека открыта с девяти часов утра."),
        ("cp866", "Библиотека открыта с девяти часов утра и до шести вечера."),
        ("cp1250", "Zażółć gęślą jaźń. Książki można wypożyczyć na trzy tygodnie."),
        ("iso8859-2", "Knihovna je otevřena každý den od devíti hodin."), ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy."),
        ("cp1253", "Η βιβλιοθήκη ανοίγει στις εννέα το πρωί."), ("cp1254", "Kütüphane saat dokuzda açılır, öğleden sonra kapanır. Işıklar söner."),
        ("cp1255", "הספרייה נפתחת בשעה תשע בבוקר."), ("cp1256", "تفتح المكتبة في الساعة التاسعة صباحا."),
        ("shift_jis", "東京支社は九時に開きます。"), ("euc_jp", "本は三週間借りられます。返却が遅れると料金がかかります。"),
        ("iso2022_jp", "東京支社は九時に開きます。"), ("gbk", "图书馆在工作日九点开门，星期六十点开门。"), ("big5", "圖書館在工作日九點開門，星期六十點開門。"),
        ("euc_kr", "도서관은 아홉 시에 문을 엽니다."), ("cp874", "ห้องสมุดเปิดเวลาเก้าโมงเช้า"), ("cp1257", "Šiandien biblioteka atidaryta nuo devynių ryto."),
        ("utf-16-le", "The library opens at nine. Größe 5."), ("utf-16-be", "The library opens at nine."), ("utf-32", "Größe"),
    ],
)  # fmt: skip
def test_other_encodings_are_read_where_there_is_evidence_for_them(encoding, text):
    assert text_of("a.txt", text.encode(encoding)).strip() == text


def test_one_bad_byte_loses_that_character_alone_and_is_told():
    document = load_file(CASES / "txt" / "utf8_onebad.txt")
    assert document.text.count(["Die Küche schließt um fünf. Größe 5 €", " Das Büro in Köln öffnet früh."][0]) == 5
    assert "Das Büro in Köln öffnet früh." in document.text and "Caf\ufffd" in document.text
    assert document.notes == ("1 byte is not UTF-8 and read as \ufffd",)


@pytest.mark.parametrize(
    ("data", "kept", "lost"),
    [
        ("Größe für Köln – früh. ".encode() * 3 + b"Caf\xe9", "Größe für Köln", 1),
        ("Возврат денег. ".encode() + b"\xff" + " Пять дней.".encode(), "Пять дней.", 1),
        ("東京支社 ".encode() * 4 + b"\x80\x81 ok", "東京支社", 2),
        ("naïve façade, crème brûlée, ".encode() + "déjà vu, über alles".encode()[:-12] + b"\xc3", "crème brûlée", 1),
        ("Привет мир. ".encode() * 5 + "мир".encode()[:-1], "Привет мир.", 1),
    ],
)
def test_utf_8_with_few_errors_stays_utf_8(data, kept, lost):
    document = parse_file("/docs/a.txt", data)
    assert kept in document.text and document.text.count("\ufffd") == lost
    assert len(document.notes) == 1 and str(lost) in document.notes[0]


def test_a_page_without_a_closing_head_is_read_whole():
    document = load_file(CASES / "html" / "parking.html")
    assert document.title == "Parking"
    assert "The fee is four euros a day.\n\nBicycles are free." in document.text


@pytest.mark.parametrize(
    "markup",
    [
        "<html><head><title>T</title><body><p>The fee is four euros.",
        "<head><meta charset=utf-8><p>The fee is four euros.",
        "<title>T</title><link rel=stylesheet href=x.css><p>The fee is four euros.",
        "<p>The fee is four euros.</p><head><title>T</title></head>",
        "<!-- saved --><head><script>x()</script><style>p{}</style>The fee is four euros.",
        "<body><nav><a href=/>Home</a><a href=/b>Books</a><h1>Fees</h1><p>The fee is four euros.</p>",
        "<body><nav><ul><li><a href=/>Home</a><li><a href=/b>Books</a></ul><article><p>The fee is four euros. Children pay nothing at all.</article>",
        "<html><body><p>x</body></html><p>The fee is four euros.",
        "<script src=a.js/><body><p>The fee is four euros.",
    ],
)  # fmt: skip
def test_whatever_is_left_out_or_unclosed_the_page_is_read(markup):
    assert "The fee is four euros." in page(markup)
    assert "Home" not in page(markup)


def test_omitted_end_tags_make_items():
    assert load_file(CASES / "html" / "omitted_li.html").text == (
        "# Kit list\n\n- Rope of 30 m\n- Helmet\n- Lamp\n- Whistle\n- Map\n- Stove\n\nBring it all.\n"
    )


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<ul><li>A<li>B<ul><li>C<li>D</ul><li>E</ul>", "- A\n- B\n  - C\n  - D\n- E"),
        ("<ol><li>A<li>B</ol>", "1. A\n2. B"),
        ("<ol start=4><li>A<li>B</ol>", "4. A\n5. B"),
        ("<p>One<p>Two<div>Three</div>Four", "One\n\nTwo\n\nThree\n\nFour"),
        ("<table><tr><td>A<td>B<tr><td>C<td>D</table>", "| A | B |\n| --- | --- |\n| C | D |"),
        ("<dl><dt>Fee<dd>Two euros<dt>Term<dd>Three weeks</dl>", "Fee: Two euros\n\nTerm: Three weeks"),
        ("<select><option>One<option>Two</select><p>x", "One\n\nTwo\n\nx"),
        ("<blockquote><p>A<p>B</blockquote>", "> A\n\n> B"),
        ("One<br>Two", "One  \nTwo"),
        ("<h1>A<h2>B</h2><p>C", "# A\n\n## B\n\nC"),
    ],
)
def test_other_omitted_tags_make_blocks(markup, expected):
    assert page(markup) == expected


@pytest.mark.parametrize(
    "markup",
    [
        "".join(f"<p>Entry {n}: the pump ran." for n in range(1200)),
        "<div>" * 3000 + "Entry 1199: the pump ran.",
        "<b><i>" * 2000 + "Entry 1199: the pump ran.",
        "<ul><li>" * 600 + "Entry 1199: the pump ran.",
        "<blockquote>" * 600 + "Entry 1199: the pump ran.",
        "<table><tr><td>" * 400 + "Entry 1199: the pump ran.",
        "<font>" * 5000 + "Entry 1199: the pump ran.",
    ],
)
def test_depth_is_no_matter(markup):
    assert "Entry 1199: the pump ran." in page(markup)


@pytest.mark.parametrize(
    ("markup", "row"),
    [
        ("<table><tr><th>Region<th>Town<tr><td rowspan=3>North<td>Alder<tr><td>Birch<tr><td>Elm</table>", "| North | Elm |"),
        ("<table><tr><th>A<th>B<th>C<tr><td colspan=2>Both<td>9</table>", "| Both | Both | 9 |"),
        ("<table><tr><th>A<th>B<th>C<tr><td>1<td rowspan=2>Mid<td>2<tr><td>3<td>4</table>", "| 3 | Mid | 4 |"),
        ("<table><tr><th>A<th>B<th>C<tr><td rowspan=2 colspan=2>Q<td>2<tr><td>4</table>", "| Q | Q | 4 |"),
        ("<table><thead><tr><th>Town<th colspan=2>2024<tr><th><th>Q1<th>Q2</thead><tr><td>Elm<td>1<td>2</table>", "| Town | 2024 Q1 | 2024 Q2 |"),
        ("<table><tr><th>A<th>B<tr><td rowspan=99>N<td>1<tr><td>2</table>", "| N | 2 |"),
        ("<table><tr><th>A<th>B<tr><td rowspan=0>N<td>1<tr><td>2<tr><td>3</table>", "| N | 3 |"),
        ("<table><tr><th>A<th>B<tr><td rowspan=x colspan=-1>N<td>1</table>", "| N | 1 |"),
        ("<table><tr><th>A<th>B<tr><td>1<td rowspan=2>Last<tr><td>2</table>", "| 2 | Last |"),
        ("<table><tr><th>A<th>B<tr><td>x|y<td><p>one<p>two</table>", "| x\\|y | one two |"),
    ],
)  # fmt: skip
def test_cells_that_span_count_for_each(markup, row):
    assert row in page(markup).split("\n")


def test_the_spanning_cells_of_the_case_files_count_for_each():
    for name in ("html/rowspan.html", "docx/merged.docx"):
        assert "| North | Birch | D2 |" in load_file(CASES / name).text
    assert "| South (all towns) | South (all towns) | D9 |" in load_file(CASES / "docx" / "merged.docx").text


def test_superscripts_are_kept_apart_from_numbers():
    text = load_file(CASES / "html" / "sup.html").text
    assert "10^6 litres over an area of 5^2 metres." in text
    assert "The late fee is 40 euros [1]." in text and "[1] From March on." in text


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("a flow of 3 × 10<sup>-4</sup> m<sup>3</sup>/s", "a flow of 3 × 10^-4 m^3/s"),
        ("E = mc<sup>2</sup>", "E = mc^2"),
        ("The fee is 25<sup><a href='#n'>2</a></sup> euros a year. More.", "The fee is 25 euros a year [2]. More."),
        ("It costs 12 euros<sup>3</sup>.", "It costs 12 euros [3]."),
        ("the 1<sup>st</sup> of May", "the 1st of May"),
        ("The limit is 30<sup>*</sup> days", "The limit is 30 days [*]"),
        ("Founded in 1806.<sup>[4]</sup> It burned.", "Founded in 1806. It burned [4]."),
        ("Built in 1806<sup id='cite_ref-1' class='reference'>1</sup>, burned later.", "Built in 1806 [1], burned later."),
        ("2<sup>n+1</sup> states", "2^(n+1) states"),
        ("H<sub>2</sub>O and CO<sub>2</sub>", "H2O and CO2"),
        ("log<sub>2</sub> of x<sub>i</sub>", "log_2 of x_i"),
        ("Acme<sup>®</sup> pumps, Widget<sup>TM</sup>", "Acme® pumps, WidgetTM"),
        ("an area of 20 km<sup>2</sup>", "an area of 20 km^2"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mi>a</mi><mn>2</mn></mfrac></math>", "x^2 + a/2"),
    ],
)
def test_other_superscripts_and_subscripts(markup, expected):
    assert page(f"<p>{markup}</p>") == expected


def test_a_latin_1_page_holds_what_windows_1252_has():
    text = load_file(CASES / "html" / "iso_smart.html").text
    assert "She said “we open at nine” – the café costs 5 €." in text


@pytest.mark.parametrize("label", ["iso-8859-1", "latin1", "ISO_8859-1", "us-ascii", "windows-1252", "x-cp1252"])
def test_labels_mean_what_browsers_make_of_them(label):
    markup = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={label}"></head><p>'
    assert "“5 €” – café…" in text_of("a.html", markup.encode() + "“5 €” – café…".encode("cp1252"))


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("gb2312", "gb18030", "图书馆九点开门。"), ("shift_jis", "cp932", "東京支社①は九時に"), ("windows-1251", "cp1251", "Возврат денег"),
        ("euc-kr", "cp949", "도서관은"), ("iso-8859-9", "cp1254", "açılır – “İş”"), ("tis-620", "cp874", "ห้องสมุด"),
    ],
)  # fmt: skip
def test_declared_encodings_are_read(label, codec, text):
    assert text in text_of("a.html", f"<meta charset={label}><p>".encode() + text.encode(codec))
    assert text in text_of("b.xhtml", f'<?xml version="1.0" encoding="{label}"?><html><p>'.encode() + text.encode(codec))


def test_hidden_text_is_no_text():
    assert load_file(CASES / "html" / "hidden.html").text == "The price is 30 euros.\n"


@pytest.mark.parametrize(
    "hidden",
    [
        '<div style="DISPLAY : none !important">Old price 22.</div>',
        '<div style="color:red;visibility:hidden">Old price 22.</div>',
        "<section hidden=''><p>Old price 22.</p></section>",
        '<ul aria-hidden="true"><li>Old price 22.</ul>',
        "<template><p>Old price 22.</p></template>",
        '<style>.gone, #x {display:none} @media print {.page {display: none}}</style><p class="gone">Old price 22.</p>',
        "<noscript>Old price 22.</noscript>",
        "<dialog>Old price 22.</dialog>",
        '<input type="hidden" value="Old price 22."><!-- Old price 22. -->',
        '<p style="font-size:0">Old price 22.</p>',
        '<table><tr style="display:none"><td>Old price 22.<td>x</tr><tr><td>a<td>b</table>',
    ],
)
def test_other_ways_to_hide_text(hidden):
    text = page(f'<body><p class="page">The price is 30 euros.</p>{hidden}<p>End.</p>')
    assert "Old price" not in text and "The price is 30 euros." in text and text.endswith("End.")


@pytest.mark.parametrize("shown", ["<details><summary>More</summary>Fee 3.</details>", "<p style='display:block'>Fee 3.",
                                   "<p hidden=until-found>Fee 3.", "<p style='opacity:0.9'>Fee 3.", "<p aria-hidden=false>Fee 3.",
                                   "<body style='display:none'><p>Fee 3.", "<div class=a>Fee 3.</div><style>.b{display:none}</style>"])  # fmt: skip
def test_what_is_shown_stays(shown):
    assert "Fee 3." in page(shown)


def test_an_xml_declaration_is_no_sentence():
    document = load_file(CASES / "html" / "xhtml.html")
    assert (document.title, document.text) == ("Lift", "# Lift\n\nThe lift carries eight people.\n")


@pytest.mark.parametrize(
    "markup",
    [
        '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body><p>The lift.</p></body></html>',
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" ""><html><body><a id="x"/><p>The lift.</p></body></html>',
        '<html xmlns="http://www.w3.org/1999/xhtml"><body><div/><script type="a" src="b"/><p><![CDATA[The lift.]]></p></body></html>',
        '<?xml version="1.0"?><?xml-stylesheet href="a.css"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>The lift.</p></body></html>',
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><style>/*<![CDATA[*/p{}/*]]>*/</style></head><body><p>The lift.</p></body></html>',
    ],
)
def test_other_pages_in_xhtml(markup):
    assert page(markup) == "The lift."


def docx(body: str, **parts: str) -> bytes:
    names = {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
        "v": "urn:schemas-microsoft-com:vml",
        "w14": "http://schemas.microsoft.com/office/word/2010/wordml",
        "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    }
    spaces = " ".join(f'xmlns:{name}="{uri}"' for name, uri in names.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "".join(
        f'<Override PartName="/word/{name}.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.{name}+xml"/>'
        for name in parts
    )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", f'{head}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>{kinds}</Types>')  # fmt: skip
        package.writestr("_rels/.rels", f'{head}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>')  # fmt: skip
        package.writestr("word/document.xml", f"{head}<w:document {spaces}><w:body>{body}</w:body></w:document>")
        relations = "".join(f'<Relationship Id="r{name}" Type="{office}/{name}" Target="{name}.xml"/>' for name in parts)
        package.writestr("word/_rels/document.xml.rels", f'{head}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{relations}</Relationships>')  # fmt: skip
        for name, content in parts.items():
            package.writestr(f"word/{name}.xml", f"{head}<w:{name} {spaces}>{content}</w:{name}>")
    return data.getvalue()


def r(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def test_fields_controls_ruby_and_directions_of_word_files_are_text():
    text = load_file(CASES / "docx" / "fields.docx").text
    for expected in ("Contract number K-7781 of 3 May 2024.", "Signed in Turku.", "Block control text.", "Block custom xml text.",
                     "東京支社", "BDO text", "DIR text"):  # fmt: skip
        assert expected in text


def test_formulas_of_word_files_are_text():
    text = load_file(CASES / "docx" / "equation.docx").text
    assert "is computed as r = i / 12 where i is the yearly rate." in text and "(a+b)/2" in text


FIELD = ('<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> REF x </w:instrText></w:r>'
         '<w:r><w:fldChar w:fldCharType="separate"/></w:r>' + r("17") + '<w:r><w:fldChar w:fldCharType="end"/></w:r>')  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected", "absent"),
    [
        (f"<w:p>{r('See section ')}{FIELD}{r('.')}</w:p>", "See section 17.", "REF"),
        (f"<w:p><w:smartTag w:element='date'>{r('3 May')}</w:smartTag>{r(' 2024')}</w:p>", "3 May 2024", ""),
        (f"<w:p><w:sdt><w:sdtPr><w:text/></w:sdtPr><w:sdtContent><w:sdt><w:sdtContent>{r('Nested.')}</w:sdtContent></w:sdt></w:sdtContent></w:sdt></w:p>", "Nested.", ""),
        (f"<w:tbl><w:tr><w:sdt><w:sdtContent><w:tc><w:p>{r('Cell A')}</w:p></w:tc></w:sdtContent></w:sdt><w:tc><w:p>{r('Cell B')}</w:p></w:tc></w:tr></w:tbl>", "Cell A | Cell B", ""),
        (f"<w:p>{r('Fee ')}<w:ins w:id='1'>{r('30')}</w:ins><w:del w:id='2'><w:r><w:delText>22</w:delText></w:r></w:del>{r(' euros')}</w:p>", "Fee 30 euros", "22"),
        (f"<w:p><w:moveFrom>{r('gone')}</w:moveFrom><w:moveTo>{r('moved here')}</w:moveTo></w:p>", "moved here", ""),
        (f"<w:p>{r('Seen.')}{r(' Draft 19.', '<w:vanish/>')}</w:p>", "Seen.", "Draft"),
        ("<w:p><w:r><w:t>co</w:t><w:noBreakHyphen/><w:t>op</w:t><w:tab/><w:t>9</w:t></w:r></w:p>", "co-op", ""),
        (f"<w:p>{r('10')}{r('6', '<w:vertAlign w:val=&quot;superscript&quot;/>'.replace('&quot;', chr(34)))}{r(' litres')}</w:p>", "10^6 litres", "106"),
        (f"<w:p><w:hyperlink r:id='x'>{r('The terms')}</w:hyperlink>{r(' hold.')}</w:p>", "The terms hold.", ""),
        ("<w:p><m:oMath><m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup><m:rad><m:radPr/><m:deg/><m:e><m:r><m:t>y</m:t></m:r></m:e></m:rad></m:oMath></w:p>", "x^2√(y)", ""),
        ("<w:p><m:oMath><m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub><m:r><m:t>i=1</m:t></m:r></m:sub><m:sup><m:r><m:t>n</m:t></m:r></m:sup><m:e><m:r><m:t>i</m:t></m:r></m:e></m:nary></m:oMath></w:p>", "∑_(i=1)^(n) i", ""),
        (f"<w:p><w:r><mc:AlternateContent><mc:Choice Requires='wps'><w:drawing><wps:txbx><w:txbxContent><w:p>{r('Boxed text.')}</w:p></w:txbxContent></wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent><w:p>{r('Boxed text.')}</w:p></w:txbxContent></v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>", "Boxed text.", ""),
        (f"<w:tbl><w:tr><w:tc><w:p>{r('A')}</w:p></w:tc><w:tc><w:p>{r('B')}</w:p></w:tc></w:tr><w:tr><w:trPr><w:del w:id='1'/></w:trPr><w:tc><w:p>{r('old')}</w:p></w:tc><w:tc><w:p>{r('row')}</w:p></w:tc></w:tr></w:tbl>", "| A | B |", "old"),
        (f"<w:tbl><w:tr><w:tc><w:p>{r('H1')}</w:p></w:tc><w:tc><w:tcPr><w:gridSpan w:val='2'/></w:tcPr><w:p>{r('H2')}</w:p></w:tc></w:tr><w:tr><w:tc><w:p>{r('x')}</w:p></w:tc><w:tc><w:p>{r('y')}</w:p></w:tc><w:tc><w:p>{r('z')}</w:p></w:tc></w:tr></w:tbl>", "| H1 | H2 | H2 |", ""),
        (f"<w:p><w:r><w:sym w:font='Symbol' w:char='F0B0'/></w:r>{r('C')}</w:p>", "C", ""),
    ],
)  # fmt: skip
def test_whatever_holds_text_in_a_word_file_is_text(body, expected, absent):
    text = text_of("a.docx", docx(body))
    assert expected in text and text.count(expected) == 1
    assert not absent or absent not in text


def test_footnotes_of_word_files_stand_apart_from_numbers():
    body = f"<w:p>{r('The fee is 40')}<w:r><w:footnoteReference w:id='2'/></w:r>{r(' euros.')}</w:p>"
    notes = f"<w:footnote w:id='2'><w:p>{r('From March on.')}</w:p></w:footnote>"
    text = text_of("a.docx", docx(body, footnotes=notes))
    assert "The fee is 40 euros [1]." in text and "From March on." in text


def write(draw, **options) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, **options)
    draw(canvas)
    canvas.save()
    return data.getvalue()


def test_pdfs_with_an_empty_password_are_read_and_others_name_what_they_need():
    assert load_file(CASES / "pdf" / "aes_empty.pdf").text == "The vault code is kept by the treasurer."
    with pytest.raises(IngestError, match=r"aes_pw\.pdf is encrypted and needs a password"):
        load_file(CASES / "pdf" / "aes_pw.pdf")


@pytest.mark.parametrize("strength", [40, 128])
@pytest.mark.parametrize("password", ["", "secret"])
def test_older_encryption_is_treated_alike(strength, password):
    from reportlab.lib.pdfencrypt import StandardEncryption

    data = write(lambda canvas: canvas.drawString(72, 700, "Open."), encrypt=StandardEncryption(password, strength=strength))
    if password:
        with pytest.raises(IngestError, match="needs a password"):
            parse_file("/docs/a.pdf", data)
    else:
        assert text_of("a.pdf", data) == "Open."


def test_ligatures_are_letters():
    text = load_file(CASES / "pdf" / "liga.pdf").text
    assert "The office pays the final fine for traffic offences within five days." in text
    assert "The flat fee is for certified floor work." in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [("eﬃcient ﬂow", "efficient flow"), ("ﬅone ﬀ", "stone ff"), ("cer\u00adtified", "certified"), ("5\u00a0€", "5 €"),
     ("zero\u200bwidth", "zerowidth"), ("10² ½", "10² ½"), ("ⅳ ™", "ⅳ ™")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_ligatures_and_invisible_signs_in_any_text(name, given, expected):
    assert expected in text_of(name, given.encode())


def test_form_values_are_text():
    text = load_file(CASES / "pdf" / "form.pdf").text
    assert "Name: Mira Holt" in text and "Boat length: 11.4 m" in text


def test_other_form_values_and_comments_are_text():
    def draw(canvas):
        canvas.drawString(72, 700, "Berth:")
        canvas.acroForm.textfield(name="berth", x=160, y=695, width=200, height=20, value="B 17, north pier")
        canvas.drawString(72, 650, "Mast:")
        canvas.acroForm.choice(name="mast", x=160, y=645, width=200, height=20, value="steel", options=["steel", "wood"])
        canvas.textAnnotation("Paid in cash on 3 May.", [300, 600, 320, 620])
        canvas.drawString(72, 600, "The rest is text.")

    text = text_of("a.pdf", write(draw))
    assert "Berth: B 17, north pier" in text and "Mast: steel" in text
    assert "Paid in cash on 3 May." in text and "The rest is text." in text


LEFT = ["The harbour opens at six in the", "morning and closes at ten. Boats", "above nine metres need a pilot,", "who is called by radio at least",
        "an hour before they arrive here."]  # fmt: skip
RIGHT = ["Fees are paid at the office near", "the crane. A night costs twelve", "euros, and water is free. In the", "winter months nobody is there,",
         "and a box takes the envelopes."]  # fmt: skip


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_columns_of_a_pdf_are_read_one_after_the_other(order):
    def draw(canvas):
        canvas.drawString(72, 760, "Harbour rules for everybody who comes by boat, and for those who visit them")
        both = [(72, y, line) for y, line in enumerate(LEFT)], [(320, y, line) for y, line in enumerate(RIGHT)]
        for x, y, line in [pair for row in zip(*both) for pair in row] if order == "rows" else [*both[0], *both[1]]:
            canvas.drawString(x, 700 - 16 * y, line)

    flat = " ".join(text_of("a.pdf", write(draw)).split())
    assert flat == " ".join(["Harbour rules for everybody who comes by boat, and for those who visit them", *LEFT, *RIGHT])


def test_tables_of_a_pdf_are_read_row_by_row():
    rows = [
        ("Region", "Town", "Depot"),
        ("North", "Alder", "D1"),
        ("North", "Birch", "D2"),
        ("South", "Cedar", "D3"),
        ("South", "Dogwood", "D4"),
    ]

    def draw(canvas):
        for y, row in enumerate(rows):
            for x, cell in enumerate(row):
                canvas.drawString(72 + 150 * x, 700 - 16 * y, cell)

    assert "North Birch D2" in " ".join(text_of("a.pdf", write(draw)).split())


def test_headers_and_footers_that_repeat_are_left_out_and_pages_are_known():
    facts = ["The fee is four euros.", "Bicycles are free.", "Dogs stay outside.", "The gate closes at ten."]

    def draw(canvas):
        for number, fact in enumerate(facts, 1):
            canvas.drawString(72, 800, "Town of Alder - Rules 2024")
            canvas.drawString(72, 700, f"{fact} Rule {number}.")
            canvas.drawString(72, 40, f"Page {number} of {len(facts)}")
            canvas.showPage()

    document = parse_file("/docs/a.pdf", write(draw))
    assert "Town of Alder" not in document.text and "Page" not in document.text
    for number, fact in enumerate(facts, 1):
        assert document.place_of(document.text.index(fact)) == {"page": number}


def test_a_scan_is_said_to_be_one_and_pages_without_text_are_named():
    def picture(canvas):
        canvas.rect(72, 72, 400, 600, fill=1)
        canvas.showPage()

    assert "scan" in parse_file("/docs/a.pdf", write(lambda canvas: [picture(canvas) for _ in range(3)])).notes[0]

    def mixed(canvas):
        canvas.drawString(72, 700, "Words.")
        canvas.showPage()
        picture(canvas)

    assert parse_file("/docs/a.pdf", write(mixed)).notes == ("no text on page 2, which may be scanned",)


def test_front_matter_is_known_whatever_ends_its_lines():
    for name in ("p0017.md", "p0018.md"):
        document = load_file(CASES / "md" / name)
        assert (document.title, document.text.count("\r")) == ("Leave policy", 0)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("title", ["title: Leave policy", 'title: "Leave policy"', "title:   'Leave policy'  "])
def test_other_front_matter(end, title):
    text = end.join(["---", "layout: page", title, "---", "", "Staff may carry over six days.", ""])
    assert parse_file("/docs/a.md", text.encode()).title == "Leave policy"
    assert parse_file("/docs/a.md", b"\xef\xbb\xbf" + text.encode()).title == "Leave policy"
