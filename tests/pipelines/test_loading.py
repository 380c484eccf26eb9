"""Loading: every supported format as text with a title, and an error in one sentence for what is not readable."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
from pathlib import Path

import pytest

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading import find_files, load_file

HTML = """<!doctype html><html><head><title>Shop - Refunds</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><!-- hidden -->
<h1>Refunds</h1><p>Refunds take <b>five</b> days &amp; more, see <a href="https://example.org/x">the terms</a>.</p>
<h2>Fees</h2><table><tr><th>Item</th><th>Fee</th></tr><tr><td>Book</td><td>2 €</td></tr></table>
<pre><code># no heading
x = 1</code></pre><img src="x.png" alt="a chart"><script>alert("script")</script></body></html>"""


def write_pdf(path: Path, pages: list[str], title: str | None = None, password: str | None = None) -> Path:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), encrypt=StandardEncryption(password, canPrint=0) if password is not None else None)
    if title:
        canvas.setTitle(title)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 780 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return path


def write_docx(path: Path) -> Path:
    import docx

    document = docx.Document()
    document.add_heading("Travel rules", level=1)
    document.add_paragraph("Trains are booked by the office.")
    document.add_heading("Meals", level=2)
    document.add_paragraph("Breakfast is paid.", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["City", "Limit", "Köln", "40"]):
        cell.text = text
    document.save(str(path))
    return path


def test_markdown_keeps_its_text_and_is_named_by_its_first_heading(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("Intro.\n\n## The *second* `part`\n\nText.\n", encoding="utf-8")
    document = load_file(path)
    assert document.text == "Intro.\n\n## The *second* `part`\n\nText.\n"
    assert (document.title, document.format) == ("The second part", "markdown")
    assert document.path == path.resolve().as_posix()
    assert document.digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def test_a_heading_in_a_code_fence_names_nothing(tmp_path):
    path = tmp_path / "notes.markdown"
    path.write_text("```\n# comment\n```\n")
    assert load_file(path).title == "notes"


def test_front_matter_names_a_markdown_file_without_headings(tmp_path):
    path = tmp_path / "post.md"
    path.write_text('---\ndate: 2026-01-01\ntitle: "A post"\n---\nWords.\n')
    assert load_file(path).title == "A post"


def test_plain_text_is_named_by_its_file_and_has_no_headings(tmp_path):
    path = tmp_path / "read me.txt"
    path.write_text("# not a heading\nText.")
    document = load_file(path)
    assert (document.title, document.format, document.text) == ("read me", "plain", "# not a heading\nText.")


def test_line_ends_become_newlines_as_python_reads_them(tmp_path):
    path = tmp_path / "dos.md"
    path.write_bytes(b"# One\r\n\r\nTwo\rThree\r\n")
    assert load_file(path).text == path.read_text() == "# One\n\nTwo\nThree\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_in_other_encodings_is_read(tmp_path, encoding):
    text = "Der Käufer erhält sein Geld zurück, über die Höhe entscheidet das Büro für Rückgaben in Köln. " * 3
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert load_file(path).text == text


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_bytes_that_are_not_text_are_an_error_that_names_the_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x7fELF\x00\x01\x02" * 50)
    with pytest.raises(IngestError, match=name):
        load_file(path)


def test_half_a_utf_16_character_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("text".encode("utf-16")[:-1])
    with pytest.raises(IngestError, match="not text"):
        load_file(path)


def test_html_becomes_markdown_without_scripts_styles_navigation_and_addresses(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(HTML, encoding="utf-8")
    document = load_file(path)
    assert (document.title, document.format) == ("Refunds", "markdown")
    assert document.text.startswith("# Refunds\n\nRefunds take **five** days & more, see the terms.\n\n## Fees\n")
    assert "| Item | Fee |\n| --- | --- |\n| Book | 2 € |" in document.text
    assert "```\n# no heading\nx = 1\n```" in document.text
    assert "a chart" in document.text
    for word in ("script", "color", "Home", "hidden", "example.org", "Shop", "doctype"):
        assert word not in document.text


def test_html_without_headings_is_named_by_its_title(tmp_path):
    path = tmp_path / "a.htm"
    path.write_text("<html><head><title>\n The  page </title></head><body><p>Words.</p></body></html>")
    document = load_file(path)
    assert (document.title, document.text) == ("The page", "Words.\n")


def test_html_is_read_in_the_charset_that_it_declares(tmp_path):
    path = tmp_path / "a.html"
    path.write_bytes('<meta charset="windows-1251"><h1>Возврат денег</h1>'.encode("windows-1251"))
    assert load_file(path).title == "Возврат денег"


def test_word_files_become_markdown_with_headings_lists_and_tables(tmp_path):
    document = load_file(write_docx(tmp_path / "travel.docx"))
    assert (document.title, document.format) == ("Travel rules", "markdown")
    assert "# Travel rules\n\nTrains are booked by the office.\n\n## Meals\n" in document.text
    assert "- Breakfast is paid." in document.text
    assert "| City | Limit |\n| --- | --- |\n| Köln | 40 |" in document.text


def test_pictures_in_word_files_leave_no_bytes_in_the_text(tmp_path):
    import docx

    pixel = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100"
        "c9fe92ef0000000049454e44ae426082"
    )
    document = docx.Document()
    document.add_paragraph("Before.")
    document.add_picture(io.BytesIO(pixel))
    document.save(str(tmp_path / "a.docx"))
    assert load_file(tmp_path / "a.docx").text == "Before.\n"


def test_pdf_pages_become_plain_text_named_by_the_metadata(tmp_path):
    document = load_file(write_pdf(tmp_path / "a.pdf", ["Refunds take\nfive days.", "Second page."], "Refund rules"))
    assert (document.title, document.format) == ("Refund rules", "plain")
    assert document.text.split("\n\n") == ["Refunds take\nfive days.", "Second page."]


def test_a_pdf_without_a_title_is_named_by_its_file(tmp_path):
    assert load_file(write_pdf(tmp_path / "rules.pdf", ["Text."])).title == "rules"


def test_an_encrypted_pdf_is_an_error_that_says_so(tmp_path):
    path = write_pdf(tmp_path / "locked.pdf", ["Secret."], password="secret")
    with pytest.raises(IngestError, match=r"locked\.pdf is encrypted"):
        load_file(path)


def test_a_pdf_that_only_forbids_printing_is_read(tmp_path):
    assert load_file(write_pdf(tmp_path / "a.pdf", ["Open."], password="")).text == "Open."


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
def test_broken_files_are_an_error_that_names_the_file_and_log_nothing(tmp_path, name, caplog):
    path = tmp_path / name
    whole = (write_pdf(path, ["Text " * 9]) if name == "a.pdf" else write_docx(path)).read_bytes()
    for data in (b"", b"no such format", whole[:200]):
        path.write_bytes(data)
        with pytest.raises(IngestError, match=name):
            load_file(path)
    assert not caplog.records


def test_missing_and_unsupported_files_are_errors(tmp_path):
    with pytest.raises(IngestError, match="No such file"):
        load_file(tmp_path / "none.md")
    (tmp_path / "a.xyz").write_text("text")
    with pytest.raises(IngestError, match="unsupported extension"):
        load_file(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("name", "library"), [("a.html", "selectolax"), ("a.pdf", "pypdfium2"), ("a.docx", "mammoth"), ("a.md", "markdown_it")]
)
def test_a_missing_library_names_the_extra_to_install(tmp_path, monkeypatch, name, library):
    import importlib

    genuine_import, genuine_module = builtins.__import__, importlib.import_module

    def refuse(wanted, *args, **kwargs):
        if wanted.split(".")[0] == library:
            raise ImportError(wanted)
        return genuine_import(wanted, *args, **kwargs)

    def refuse_module(wanted, *args):
        if wanted == library:
            raise ImportError(wanted)
        return genuine_module(wanted, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(importlib, "import_module", refuse_module)
    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(ImportError, match=r"pip install 'crisp-rag\[ingest\]'"):
        load_file(tmp_path / name)


def test_folders_are_searched_in_order_and_hidden_names_passed_over(tmp_path):
    for name in ("b.md", "a/z.TXT", "a/b/c.html", ".hidden.md", ".git/x.md", "c.png", "Makefile"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    files, skipped = find_files([tmp_path])
    assert [file.relative_to(tmp_path.resolve()).as_posix() for file in files] == ["a/b/c.html", "a/z.TXT", "b.md"]
    assert {Path(item.path).name: item.reason for item in skipped} == {
        "c.png": "unsupported extension '.png'",
        "Makefile": "no extension",
    }


def test_a_file_reached_in_several_ways_is_listed_once(tmp_path):
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "link.md").symlink_to(tmp_path / "a.md")
    assert find_files([tmp_path / "a.md", tmp_path, str(tmp_path / "link.md")])[0] == [(tmp_path / "a.md").resolve()]


def test_links_that_run_in_circles_or_nowhere_do_no_harm(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.md").symlink_to(tmp_path / "none.md")
    files, skipped = find_files(tmp_path)
    assert [file.name for file in files] == ["a.md"]
    assert sorted(Path(item.path).name for item in skipped) == ["gone.md", "self"]


def test_a_pipe_is_skipped_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")
    files, skipped = find_files([tmp_path])
    assert files == [] and [item.reason for item in skipped] == ["not a regular file"]


def test_a_hidden_file_that_was_named_is_taken(tmp_path):
    (tmp_path / ".notes.md").write_text("x")
    assert [file.name for file in find_files([tmp_path / ".notes.md"])[0]] == [".notes.md"]


def test_a_source_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(IngestError, match="none does not exist"):
        find_files([tmp_path, tmp_path / "none"])
