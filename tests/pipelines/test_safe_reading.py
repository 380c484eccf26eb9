"""Reading strangers' files: what exceeds a limit is stopped and listed, and the other files are read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from crisp_rag import CrispIndex
from crisp_rag.errors import IngestError, InvalidInputError
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.pipelines.loading import Limits, SafeReader, load_file
from crisp_rag.pipelines.loading import registry as registry_module
from crisp_rag.pipelines.loading.worker import _answer

CASES = Path(__file__).parent / "cases"
REPEATED = {"comment": "<!--", "bang": "<!", "cdata": "<![CDATA[", "b": "<b>", "table": "<table>", "td": "<table><tr><td>",
            "style": "<style>/*",
            "a": "<a href=x>", "li": "<li>", "quote": "<blockquote>", "close": "</p>", "entity": "&",
            "attribute": "<p a=\"", "h1": "<h1>"}  # fmt: skip


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return data.getvalue()


def bomb(megabytes: int) -> bytes:
    text = b"<w:t>" + b"A" * (megabytes * 2**20) + b"</w:t>"
    space = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = b"<w:document " + space + b"><w:body><w:p><w:r>" + text + b"</w:r></w:p></w:body></w:document>"
    return zipped({"[Content_Types].xml": b"<Types/>", "word/document.xml": body})


def circular_pages() -> bytes:
    """A PDF whose page tree names each child twice: 2^40 pages in 3 KB."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    for number in range(2, 42):
        objects.append(f"<< /Type /Pages /Count {2 ** (42 - number)} /Kids [{number + 1} 0 R {number + 1} 0 R] >>")
    objects.append("<< /Type /Page /MediaBox [0 0 200 200] >>")
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    return data + f"trailer << /Root 1 0 R /Size {len(objects) + 1} >>\nstartxref\n{table}\n%%EOF".encode()


@pytest.fixture(scope="module")
def reader():
    with SafeReader(Limits(seconds=20)) as made:
        yield made


def test_a_file_is_read_as_without_limits(reader):
    for file in sorted(CASES.rglob("*.*")):
        if file.name != "aes_pw.pdf":
            assert reader.load(file) == load_file(file)


def test_one_process_reads_many_files(reader):
    reader.parse("/a.txt", b"One.")
    process = reader._process
    for number in range(300):
        assert reader.parse(f"/{number}.txt", b"Words %d." % number).text == f"Words {number}."
    assert reader._process is process


@pytest.mark.parametrize("kind", REPEATED)
def test_repeated_markup_of_80_kilobytes_is_read_at_once(reader, kind):
    data = (REPEATED[kind] * 80_000)[:80_000].encode()
    began = time.monotonic()
    reader.parse("/a.html", data + b" The end.")
    reader.parse("/a.html", b"<p>Fee: 4 euros.</p>" + data)
    assert time.monotonic() - began < 10


def test_divisions_nested_a_hundred_thousand_deep_end_within_the_limit():
    began = time.monotonic()
    with SafeReader(Limits(seconds=2)) as reader:
        try:
            assert "The end." in reader.parse("/a.html", b"<div>" * 100_000 + b"The end.").text
        except IngestError as error:
            assert "took longer than the limit of 2 s" in str(error)
        assert reader.parse("/b.txt", b"Next.").text == "Next."
    assert time.monotonic() - began < 15


def test_a_page_tree_without_end_is_stopped_or_refused():
    with SafeReader(Limits(seconds=3)) as reader:
        with pytest.raises(IngestError):
            reader.parse("/a.pdf", circular_pages())
        assert reader.parse("/b.txt", b"Next.").text == "Next."


def test_a_small_word_file_that_expands_to_300_megabytes_is_refused(reader):
    data = bomb(300)
    assert len(data) < 400_000
    began = time.monotonic()
    with pytest.raises(IngestError, match="expands"):
        reader.parse("/a.docx", data)
    assert time.monotonic() - began < 5


def test_a_member_that_is_larger_than_it_says_is_refused(reader):
    data = bytearray(bomb(1))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = (1000).to_bytes(4, "little")
    with pytest.raises(IngestError, match=r"larger than its directory says|cannot be unpacked"):
        reader.parse("/a.docx", bytes(data))


def test_xml_entities_are_not_expanded(reader):
    bombs = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "lol">{bombs}]><x>&e9;</x>'
    with pytest.raises(IngestError):
        reader.parse("/a.docx", zipped({"[Content_Types].xml": b"<Types/>", "word/document.xml": xml.encode()}))


def test_a_reader_that_hangs_is_stopped(tmp_path, monkeypatch):
    began = time.monotonic()
    with SafeReader(Limits(seconds=0.5)) as reader:
        reader._running().kill()
        # A process that reads and never answers stands for a parser without end.
        reader._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=-1, stdout=-1)
        with pytest.raises(IngestError, match=r"/a\.txt took longer than the limit of 0\.5 s"):
            reader.parse("/a.txt", b"x" * 10_000_000)
        assert time.monotonic() - began < 5
    with SafeReader() as reader:
        assert reader.parse("/b.txt", b"Next.").text == "Next."


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_memory_is_limited():
    with SafeReader(Limits(memory=160)) as reader:
        with pytest.raises(IngestError, match="MiB of memory"):
            reader.parse("/a.txt", "Größe ".encode("cp1252") * 9_000_000)
        assert reader.parse("/b.txt", b"Next.").text == "Next."


def test_an_archive_of_files_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr("crisp_rag.pipelines.loading.safe.WHOLE", 0.0)
    with SafeReader() as reader:
        with pytest.raises(IngestError, match="the files around it took"):
            reader.parse("/a.zip", zipped({"a.txt": b"One."}))
        monkeypatch.undo()
        assert reader.parse("/a.zip", zipped({"a.txt": b"One."})).members[0].text == "One."


def test_archives_within_archives_end():
    data = b"The words."
    for depth in range(6):
        data = zipped({f"{depth}.zip" if depth else "a.txt": data})
    with SafeReader() as reader:
        document = reader.parse("/a.zip", data)
    assert len(document.members) == 2 and "one in the other" in document.skipped[0].reason


def test_a_reader_that_breaks_down_loses_that_file_alone():
    with SafeReader() as reader:
        reader.parse("/a.txt", b"One.")
        reader._process.kill()
        reader._process.wait()
        assert reader.parse("/b.txt", b"Two.").text == "Two."


def test_a_call_that_is_interrupted_leaves_no_answer_for_the_next(monkeypatch):
    with SafeReader() as reader:
        reader.parse("/a.txt", b"One.")

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(SafeReader, "_asked", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reader.parse("/b.txt", b"Two.")
        assert reader.parse("/c.txt", b"Three.").text == "Three."


def test_the_process_ends_with_its_reader(tmp_path):
    with SafeReader() as reader:
        reader.parse("/a.txt", b"One.")
        process = reader._process
    assert process.poll() is not None
    code = "from crisp_rag.pipelines.loading import SafeReader; r = SafeReader(); r.parse('/a.txt', b'x'); print(r._process.pid, flush=True); import os; os._exit(1)"  # fmt: skip  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the process outlives who started it")


def test_nothing_of_the_current_folder_is_imported_and_no_key_is_handed_on(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with SafeReader() as reader:
        assert reader.parse("/a.txt", b"One.").text == "One."
        environment = Path(f"/proc/{reader._process.pid}/environ")
        if environment.is_file():
            assert b"secret" not in environment.read_bytes()


def test_what_a_parser_prints_is_no_answer(monkeypatch):
    found, members = _answer("/a.md", b"# One", 2**30)
    assert found["title"] == "One" and members == []


def test_files_above_the_size_are_not_read(tmp_path):
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * 2_000_000)
    with (
        SafeReader(Limits(megabytes=1)) as reader,
        pytest.raises(IngestError, match=r"1\.9 MiB, more than the limit of 1\.0 MiB"),
    ):
        reader.load(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no file that tells no size")
def test_a_file_without_a_size_is_read_to_the_limit_only(tmp_path):
    with SafeReader(Limits(megabytes=0.0001)) as reader, pytest.raises(IngestError, match="beyond the limit"):
        reader.read("/proc/self/status")


@pytest.mark.parametrize("name", ["megabytes", "seconds", "memory"])
def test_limits_that_make_no_sense_are_refused(name):
    for value in (0, -1, float("nan")):
        with pytest.raises(InvalidInputError, match=name):
            Limits(**{name: value})


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("half")
    genuine, calls = os.fstat, []

    def changing(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            path.write_text("the whole of it")
        return genuine(descriptor)

    monkeypatch.setattr(os, "fstat", changing)
    assert load_file(path).text == "the whole of it"

    def restless(descriptor):
        path.write_text("x" * len(calls))
        return changing(descriptor)

    monkeypatch.setattr(os, "fstat", restless)
    with pytest.raises(IngestError, match="changes while it is read"):
        load_file(path)


def test_the_rest_of_a_batch_is_indexed_and_the_command_says_what_was_skipped(tmp_path, default_encoder):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Refunds take five days.")
    (docs / "b.docx").write_bytes(bomb(300))
    (docs / "c.pdf").write_bytes(circular_pages())
    (docs / "d.html").write_text("<p>Parcels take nine days.")
    (docs / "e.txt").write_bytes(b"word " * 500_000)
    command = [sys.executable, "-m", "crisp_rag", "index", str(docs), "--index", str(tmp_path / "x"), "--json", "--strict",
               "--max-size", "2", "--max-seconds", "3", "--max-memory", "1024"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr
    report = json.loads(done.stdout)
    assert {Path(item["path"]).name for item in report["skipped"]} == {"b.docx", "c.pdf", "e.txt"}
    assert report["files"] == 2 and "Traceback" not in done.stderr


def test_a_library_that_is_missing_is_named_through_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_module, "_built_in", lambda: {".txt": ("no_such_module:load", "text")})
    assert "missing" in _answer("/a.txt", b"x", 2**30)[0]


def test_ingestion_takes_limits(tmp_path, default_encoder):
    (tmp_path / "a.txt").write_text("One.")
    with CrispIndex.create(tmp_path / "x", default_encoder) as index:
        assert ingest(index, [tmp_path / "a.txt"], limits=Limits(seconds=5)).added == 1
