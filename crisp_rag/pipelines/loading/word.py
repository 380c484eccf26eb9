"""Word files by way of mammoth, after what it would drop is written out: fields, controls, ruby, formulas.

mammoth turns styles into headings and lists, keeps merged cells, notes, text boxes and the final state of tracked changes,
and passes over elements that it does not know, with the text inside.  So these are opened before: whatever holds text is
text.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import INSTALL, Extracted
from crisp_rag.pipelines.loading.html import html_to_markdown
from crisp_rag.pipelines.loading.packed import open_package, parsed_xml, read_member

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_PARTS = re.compile(r"word/(?:document\d*|footnotes|endnotes|comments)\.xml")
_OPENED = ("fldSimple", "smartTag", "customXml", "bdo", "dir", "sdtContent", "moveTo", "hyperlink")
_PROPERTIES = ("smartTagPr", "customXmlPr", "sdtPr", "sdtEndPr")


def load_word(path: object, data: bytes) -> Extracted:
    """A .docx or .docm file."""
    try:
        import mammoth
    except ImportError as error:
        raise ImportError(f"Reading Word files needs mammoth: {INSTALL}") from error
    package = open_package(path, data, "a Word file")
    prepared = io.BytesIO()
    notes: list[str] = []
    with zipfile.ZipFile(prepared, "w", zipfile.ZIP_STORED) as out:
        for info in package.infolist():
            name = info.filename
            if name.startswith("word/media/") or name.startswith("word/embeddings/"):
                continue
            content = read_member(path, package, info)
            if _PARTS.fullmatch(name):
                content = _prepared(path, content)
            out.writestr(name, content)
    result = mammoth.convert_to_html(
        prepared,
        style_map="comment-reference => \np[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh",
        convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
        ignore_empty_paragraphs=True,
    )
    text, title = html_to_markdown(_notes_marked(result.value))
    if not text.strip():
        notes.append("it holds no text, perhaps pictures only")
    return Extracted(text, "markdown", title or _core_title(path, package), notes=tuple(notes))


def _prepared(path: object, content: bytes) -> bytes:
    """A part of the document with every text where mammoth looks for it."""
    from lxml import etree

    root = parsed_xml(path, content)
    for ruby in list(root.iter(f"{_W}ruby")):
        _replace(ruby, [run for base in ruby.iter(f"{_W}rubyBase") for run in base], within_run=True)
    for name in ("oMathPara", "oMath"):
        for formula in list(root.iter(f"{_M}{name}")):
            parent = formula.getparent()
            if parent is None:
                continue
            run = _run(f" {_linear(formula)} ")
            inside = parent.tag in (f"{_W}p", f"{_W}hyperlink", f"{_W}ins", *(f"{_W}{opened}" for opened in _OPENED))
            _replace(formula, [run if inside else _paragraph(run)])
    _describe_pictures(root)
    for row in list(root.iter(f"{_W}tr")):
        if row.find(f"{_W}trPr/{_W}del") is not None and row.getparent() is not None:
            row.getparent().remove(row)
    for run in list(root.iter(f"{_W}r")):
        vanish = run.find(f"{_W}rPr/{_W}vanish")
        if vanish is not None and vanish.get(f"{_W}val") not in ("0", "false", "off") and run.getparent() is not None:
            run.getparent().remove(run)
    for name in _PROPERTIES:
        for element in list(root.iter(f"{_W}{name}")):
            if name != "sdtPr" or element.find(".//{*}checkbox") is None:
                _replace(element, [])
    for name in _OPENED:
        for element in list(root.iter(f"{_W}{name}")):
            if name == "sdtContent" and element.getparent() is not None and element.getparent().tag == f"{_W}sdt":
                _replace(element.getparent(), list(element))
            else:
                _replace(element, list(element))
    for element in list(root.iter(f"{_W}noBreakHyphen")):
        hyphen = etree.Element(f"{_W}t")
        hyphen.text = "-"
        _replace(element, [hyphen])
    return bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _describe_pictures(root: Any) -> None:
    """What pictures show, where somebody wrote it down, in their place: addresses of their files may lead nowhere."""
    for properties in list(root.iter("{*}docPr")):
        described = (properties.get("descr") or "").strip()
        drawing = next((above for above in properties.iterancestors(f"{_W}drawing")), None)
        if drawing is not None and drawing.getparent() is not None and drawing.find(".//{*}blip") is not None:
            text = _run(described)[0]
            _replace(drawing, [text] if described else [])
    for name in ("{*}blip", "{*}imagedata"):
        for element in list(root.iter(name)):
            _replace(element, [])


def _replace(element: Any, by: list[Any], within_run: bool = False) -> None:
    """Put others in an element's place; runs that would stand inside a run give their content."""
    parent = element.getparent()
    if parent is None:
        return
    place = parent.index(element)
    if within_run and parent.tag == f"{_W}r":
        by = [child for run in by for child in (run if run.tag == f"{_W}r" else [run]) if child.tag != f"{_W}rPr"]
    parent.remove(element)
    for offset, child in enumerate(by):
        parent.insert(place + offset, child)


def _run(text: str) -> Any:
    from lxml import etree

    run = etree.Element(f"{_W}r")
    word = etree.SubElement(run, f"{_W}t")
    word.text = text
    word.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    return run


def _paragraph(run: Any) -> Any:
    from lxml import etree

    paragraph = etree.Element(f"{_W}p")
    paragraph.append(run)
    return paragraph


def _linear(element: Any, depth: int = 0) -> str:
    """A formula in one line: fractions with a slash, powers with ^, indices with _."""
    if depth > 100:
        return "".join(element.itertext())
    name = element.tag.removeprefix(_M) if isinstance(element.tag, str) else ""
    if name == "t":
        return element.text or ""
    if name.endswith("Pr"):
        return ""

    def part(which: str) -> str:
        found = element.find(f"{_M}{which}")
        return _linear(found, depth + 1).strip() if found is not None else ""

    def grouped(which: str) -> str:
        text = part(which)
        return text if re.fullmatch(r"\w*|\([^()]*\)", text) else f"({text})"

    if name == "f":
        return f"{grouped('num')}/{grouped('den')}"
    if name in ("sSup", "sSub", "sSubSup", "sPre"):
        raised = f"^{grouped('sup')}" if name != "sSub" else ""
        lowered = f"_{grouped('sub')}" if name != "sSup" else ""
        return f"{grouped('e')}{lowered}{raised}"
    if name == "rad":
        degree = part("deg")
        return f"{'root ' + degree + ' of ' if degree else '√'}({part('e')})"
    if name == "nary":
        sign = element.find(f"{_M}naryPr/{_M}chr")
        low, high = part("sub"), part("sup")
        bounds = (f"_({low})" if low else "") + (f"^({high})" if high else "")
        return f"{sign.get(f'{_M}val') if sign is not None else '∫'}{bounds} {part('e')}"
    if name == "d":
        return f"({', '.join(_linear(child, depth + 1) for child in element.findall(f'{_M}e'))})"
    return "".join(_linear(child, depth + 1) for child in element)


def _notes_marked(html: str) -> str:
    """mammoth's footnotes with their number in front, as superscripts there that the page's walk knows as notes."""
    html = re.sub(
        r'<sup><a href="#(?:foot|end)note-[^"]*" id="[^"]*">\[(\d+)\]</a></sup>', r'<sup class="note">\1</sup>', html
    )
    return re.sub(r' <a href="#(?:foot|end)note-ref-[^"]*">↑</a>', "", html)


def _core_title(path: object, package: zipfile.ZipFile) -> str:
    try:
        root = parsed_xml(path, read_member(path, package, package.getinfo("docProps/core.xml")))
    except (KeyError, IngestError):
        return ""
    title = root.findtext("{http://purl.org/dc/elements/1.1/}title") or ""
    return "" if title.strip().lower() in ("word document", "untitled") else title
