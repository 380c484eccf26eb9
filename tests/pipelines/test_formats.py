"""Places in files, loaders that others bring, tables and code that stay whole, and what show shows."""

# ruff: noqa: E501  # files in one line each

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.errors import IngestError
from crisp_rag.index import CrispIndex
from crisp_rag.index.types import Hit
from crisp_rag.pipelines.definitions import find_definitions
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.pipelines.loading import LoadedDocument, extensions, find_files, load_file, parse_file
from crisp_rag.pipelines.loading import registry as registry_module
from crisp_rag.pipelines.reading import place_in_words, source_of
from crisp_rag.pipelines.sentences import Sentence
from crisp_rag.pipelines.splitting import PassageSplitter, split_document


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone

    return AutoTokenizer.from_pretrained(str(default_backbone()))


def count(tokenizer, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def pdf(path, pages):
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path))
    for page in pages:
        canvas.drawString(72, 700, page)
        canvas.showPage()
    canvas.save()


@pytest.fixture
def folder(tmp_path, default_encoder):
    docs = tmp_path / "docs"
    docs.mkdir()
    pdf(docs / "rules.pdf", ["The mill stands by the river. " * 2, "Parking costs four euros a day.", "Dogs stay outside."])
    (docs / "towns.csv").write_text("Region,Town,Depot\nNorth,Alder,D1\nNorth,Birch,D2\n")
    with CrispIndex.create(tmp_path / "x.crisp", default_encoder) as index:
        assert ingest(index, [docs]).skipped == []
    return tmp_path / "x.crisp"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_ask_prints_pages_and_rows_and_filters_know_them(folder):
    done = run("ask", "How much does parking cost a day?", "--index", folder)
    assert done.exit_code == 0 and ", pages 1-3" in done.stdout, done.output
    answer = json.loads(run("ask", "Which depot is in the town Birch?", "--index", folder, "--json").stdout)
    assert answer["sources"][0]["quote"] == "Region: North; Town: Birch; Depot: D2"
    assert answer["sources"][0]["place"] == "row 3"
    hits = json.loads(run("search", "depot", "--index", folder, "--where", '{"row": 2}', "--json").stdout)
    assert [hit["text"] for hit in hits] == ["Region: North; Town: Alder; Depot: D1"]
    assert "row 2" in run("search", "Alder", "--index", folder, "-k", 1).stdout


def test_show_gives_a_passage_by_its_id_and_a_span_by_its_place(folder):
    hit = json.loads(run("search", "Birch", "--index", folder, "-k", 1, "--json").stdout)[0]
    done = run("show", hit["id"], "--index", folder)
    assert done.exit_code == 0 and "Region: North; Town: Birch; Depot: D2" in done.stdout and "row 3" in done.stdout
    assert json.loads(run("show", hit["id"], "--index", folder, "--json").stdout)["text"] == hit["text"]
    source = json.loads(run("ask", "How much does parking cost a day?", "--index", folder, "--json").stdout)["sources"][0]
    place = f"{source['path']}:{source['start']}-{source['end']}"
    assert run("show", place, "--index", folder).stdout.strip() == source["quote"]
    assert run("show", f"{place}, page 2", "--index", folder).stdout.strip() == source["quote"]
    missing = run("show", "nothing", "--index", folder)
    assert missing.exit_code == 1 and "holds no passage 'nothing'" in missing.stderr


@pytest.mark.parametrize(
    ("metadata", "words"),
    [({"page": 3}, "page 3"), ({"page": 3, "last_page": 4}, "pages 3-4"), ({"sheet": "Prices", "row": 4}, "sheet Prices, row 4"),
     ({"slide": 2}, "slide 2"), ({"source": "x"}, "")],
)  # fmt: skip
def test_places_in_words(metadata, words):
    assert place_in_words(metadata) == words
    assert source_of(Hit("p", 1.0, "Words.", metadata), Sentence("Words.", 0, 6), 1.0).place == words


def test_another_package_brings_a_loader(tmp_path, monkeypatch):
    (tmp_path / "drawings.py").write_text(
        "def load(name, data):\n    return 'Drawing: ' + data.decode()\n\ndef fail(name, data):\n    raise ValueError('no such drawing')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint(".dwg", "drawings:load", "crisp_rag.loaders"), EntryPoint("dxf", "drawings:fail", "crisp_rag.loaders"),
              EntryPoint(".txt", "drawings:fail", "crisp_rag.loaders")]  # fmt: skip
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    registry_module._brought.cache_clear()
    try:
        assert {".dwg", ".dxf"} <= set(extensions())
        (tmp_path / "a.dwg").write_text("a crane")
        (tmp_path / "a.dxf").write_text("x")
        (tmp_path / "a.txt").write_text("Ours.")
        assert load_file(tmp_path / "a.dwg").text == "Drawing: a crane"
        assert tmp_path / "a.dwg" in find_files([tmp_path])[0]
        assert load_file(tmp_path / "a.txt").text == "Ours."
        with pytest.raises(IngestError, match=r"a\.dxf cannot be read as a \.dxf file: no such drawing"):
            load_file(tmp_path / "a.dxf")
    finally:
        registry_module._brought.cache_clear()


def test_an_archive_is_followed_as_one_file(tmp_path, default_encoder):
    import zipfile

    archive = tmp_path / "a.zip"

    def write(**members):
        with zipfile.ZipFile(archive, "w") as package:
            for name, text in members.items():
                package.writestr(name.replace("_", "."), text)

    write(a_md="# Fees\n\nTwelve euros.", b_txt="Keys are in drawer 4.", c_png="x", d_pdf="none")
    with CrispIndex.create(tmp_path / "x.crisp", default_encoder) as index:
        report = ingest(index, [archive])
        assert (report.files, report.passages, report.added) == (1, 2, 1)
        assert sorted(item.path.rpartition("/")[2] for item in report.skipped) == ["c.png", "d.pdf"]
        hit = index.search("Where are the keys?", 1)[0]
        assert hit.metadata["source"] == f"{archive.resolve().as_posix()}/b.txt"
        assert ingest(index, [archive]).unchanged == 1
        write(a_md="# Fees\n\nThirteen euros.")
        report = ingest(index, [archive])
        assert (report.added, report.passages) == (1, 1)
        archive.unlink()
        assert ingest(index, [tmp_path]).removed == 1 and len(index) == 0


def document(text: str, format: str = "markdown", name: str = "guide.md") -> LoadedDocument:
    return LoadedDocument(f"/docs/{name}", "Guide", text, format, "d1")


ROWS = "\n".join(f"| Town {n} | Depot {n} by the river, open from nine to five |" for n in range(40))
TABLE = f"| Town | Depot |\n|---|---|\n{ROWS}"


def test_a_table_that_does_not_fit_is_cut_between_rows_and_keeps_its_headings(tokenizer):
    text = f"# Depots\n\nWhere they are.\n\n{TABLE}\n\nBehind it."
    passages = split_document(document(text), tokenizer, 100)
    assert len(passages) > 5
    for passage in passages:
        assert count(tokenizer, passage.encoded_text) <= 100
        for line in passage.text.split("\n"):
            assert not line.startswith("|") or line.endswith("|")
        if passage.text.startswith("| Town ") and not passage.text.startswith("| Town |"):
            assert passage.context == "Guide > Depots > Town | Depot"
    assert passages[-1].text.endswith("Behind it.")


def test_a_table_or_a_block_of_code_that_fits_is_one_passage(tokenizer):
    code = "```py\n" + "\n\n".join(f"value_{n} = {n}" for n in range(8)) + "\n```"
    small = "\n".join(TABLE.split("\n")[:5])
    prose = "The office pays back what a guest has spent on trains. " * 6
    text = f"{prose}\n\n{code}\n\n{prose}\n\n{small}\n\n{prose}"
    passages = [passage.text for passage in split_document(document(text), tokenizer, 130)]
    assert any(code in passage for passage in passages) and any(small in passage for passage in passages)
    assert len(passages) >= 3


def test_code_that_does_not_fit_is_cut_between_lines_and_quoted_as_code(tokenizer):
    code = "```sh\n" + "\n".join(f"# step {n} of the start of the server" for n in range(60)) + "\n```"
    passages = split_document(document(f"# Start\n\n{code}\n"), tokenizer, 80)
    assert len(passages) > 3
    assert all(line.startswith(("# ", "```")) for passage in passages for line in passage.text.split("\n") if line)
    assert [passage.metadata.get("format") for passage in passages[1:]] == ["code"] * (len(passages) - 1)


def test_a_record_is_a_passage_with_its_headings(tokenizer):
    loaded = parse_file("/docs/t.csv", b"Town,Note\n" + b"Elm,open\n" * 3 + b"Oak," + b"very long words " * 200 + b"\n")
    passages = PassageSplitter(tokenizer, 60).split(loaded)
    assert [passage.text for passage in passages[:3]] == ["Town: Elm; Note: open"] * 3
    assert [passage.metadata["row"] for passage in passages[:4]] == [2, 3, 4, 5]
    assert len({passage.id for passage in passages}) == len(passages) > 5
    assert all(count(tokenizer, passage.encoded_text) <= 60 for passage in passages)


PYTHON = '''"""Lifts things."""

LIMIT = 4


# What lifts.
@final
class Crane:
    """A crane."""

    def lift(self, tons):
        text = """
def no_function():
"""
        return tons <= LIMIT


async def main():
    pass
'''


def test_source_code_is_cut_at_its_definitions(tokenizer):
    passages = split_document(document(PYTHON, "code", "crane.py"), tokenizer)
    assert [passage.metadata["heading"] for passage in passages] == ["", "class Crane", "class Crane > def lift", "def main"]
    assert passages[1].text.startswith("# What lifts.\n@final\nclass Crane:")
    assert passages[2].context == "Guide > class Crane > def lift"


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.js", "export class A {\n  b() {\n    if (x) {\n    }\n  }\n}\nconst c = async (d) => 1;\nfunction* e() {}\n", ["class A", "b", "c", "function e"]),
        ("a.go", "package main\n\ntype T struct{}\n\nfunc (t *T) Do(a int) error {\n}\n", ["package main", "type T", "func Do"]),
        ("a.rs", "pub struct A;\nimpl A {\n    pub fn b(&self) {}\n}\n", ["struct A", "impl A", "fn b"]),
        ("a.java", "public class A {\n  @Override\n  public int b(int c) {\n    return c;\n  }\n}\n", ["class A", "b"]),
        ("a.c", "int main(int argc, char **argv)\n{\n    return f(1);\n}\nstatic void g(void) {\n}\n", ["main", "g"]),
        ("a.rb", "module M\n  class A\n    def b\n    end\n  end\nend\n", ["module M", "class A", "def b"]),
        ("a.toml", "x = 1\n[server]\ny = 2\n[[tool.a]]\n", ["server", "tool.a"]),
        ("a.sql", "CREATE TABLE IF NOT EXISTS t (a int);\ncreate or replace view v as select 1;\n", ["table t", "view v"]),
        ("broken.py", "class A:\n    def b(self:\n", ["class A", "def b"]),
        ("a.yaml", "server:\n  port: 1\n", []),
    ],
)  # fmt: skip
def test_definitions_of_other_languages(name, text, names):
    assert [definition.text for definition in find_definitions(text, name)] == names


def test_supported_kinds_are_listed():
    for wanted in [".pptx", ".xlsx", ".csv", ".tsv", ".json", ".jsonl", ".ipynb", ".epub", ".rst", ".eml", ".py", ".zip"]:
        assert wanted in extensions()
    assert "notebooks" in run("index", "--help").stdout


PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading-files.md"


def test_the_page_on_reading_files_names_what_is_read_and_its_code_runs(capsys):
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"\.\w+", "\n".join(line.split("|")[1] for line in page.split("\n") if line.startswith("| ."))))
    assert named <= set(extensions())
    lacking = set(extensions()) - named
    assert all(registry_module._built_in()[suffix][1] == "source code" for suffix in lacking), lacking
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code, PAGE.name, "exec"), {})
    assert capsys.readouterr().out == "Fees # Fees\n\nA night costs twelve euros.\n"


def test_the_figures_of_the_page_are_those_that_the_benchmark_wrote():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads((PAGE.parents[1] / "benchmarks" / "results" / "loaders.json").read_text(encoding="utf-8"))
    assert f"reads {results['files']} small files" in page
    for kind, readers in results["read"].items():
        assert f"| {kind} | {readers['crisp-rag']['of']} | {readers['crisp-rag']['right']} |" in page
    for kind, speed in results["speed"].items():
        assert f"| {kind} | {speed['read_seconds_per_file_mib']:.2f} |" in page
