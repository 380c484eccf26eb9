"""A run that was interrupted goes on, and only with what is still true."""

from __future__ import annotations

import json

import pytest

from crisp_rag.eval import DatasetSpec, Suite, evaluate, run_suite
from crisp_rag.eval.records import Record, Records, read_trec, trec


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    run = {"q 1": [("a b", 0.1 + 0.2), ("100%", -1.5)], "q\t2": [("ü", 1e-9)]}
    (tmp_path / "x.trec").write_text(trec(run, "mine"))
    assert read_trec(tmp_path / "x.trec") == run


def test_a_record_is_read_back_by_its_key_alone(tmp_path):
    record = Record({"nDCG@10": 0.5}, {"q": {"nDCG@10": 0.5}}, {"q": [("d", 1.0)]}, {"u": [("e", 0.5)]})
    Records(tmp_path).save("shop", "crisp:a/b", "key", record)
    assert Records(tmp_path).load("shop", "crisp:a/b", "key") == record
    assert Records(tmp_path).load("shop", "crisp:a/b", "other") is None
    assert Records(tmp_path).load("shop", "crisp", "key") is None


def test_a_broken_record_is_none(tmp_path):
    Records(tmp_path).save("shop", "bm25", "key", Record({}, {}, {"q": [("d", 1.0)]}))
    (tmp_path / "runs" / "shop.bm25.trec").write_text("half a li")
    assert Records(tmp_path).load("shop", "bm25", "key") is None
    (tmp_path / "details" / "shop.bm25.json").write_text("{")
    assert Records(tmp_path).load("shop", "bm25", "key") is None


class Interrupted(BaseException):
    """As KeyboardInterrupt: nothing in a run catches it."""


def test_what_was_finished_before_an_interruption_is_not_measured_again(make_folder, make_orderly, tmp_path):
    folders = [make_folder("one"), make_folder("two")]
    first, second = make_orderly("first"), make_orderly("second", backwards=True)
    second.index = lambda *_: (_ for _ in ()).throw(Interrupted())  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        evaluate(folders, [first, second], out=tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["one"]) == ["first"]
    assert first.indexed == 1

    again, finished = make_orderly("first"), make_orderly("second", backwards=True)
    results = evaluate(folders, [again, finished], out=tmp_path / "out", resume=True)
    assert (again.indexed, finished.indexed) == (1, 2)  # the first one on the second set
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert [list(systems) for systems in results.values()] == [["first", "second"]] * 2
    assert results["one"]["second"]["versus"]["baseline"] == "first"


@pytest.mark.parametrize("change", ["data", "limit", "k", "encoder"])
def test_what_has_changed_since_is_measured_again(make_folder, words, tmp_path, change):
    folder = make_folder()

    def documents_encoded(**options) -> int:
        before = words.documents
        evaluate([folder], ["words"], out=tmp_path / "out", resume=True, **options)
        return words.documents - before

    assert documents_encoded() == 4
    assert documents_encoded() == 0
    if change == "data":
        with (folder / "corpus.jsonl").open("a") as file:
            file.write('{"_id": "d5", "title": "", "text": "A new page."}\n')
        assert documents_encoded() == 5
    elif change == "encoder":
        words.fingerprint = "trained since"
        assert documents_encoded() == 4
    else:
        assert documents_encoded(**{"limit": {"limit_queries": 2}, "k": {"k": 3}}[change]) == 4


def test_without_resume_everything_is_measured_again(make_folder, make_orderly, tmp_path):
    system = make_orderly()
    for _ in range(2):
        evaluate([make_folder(f"set{system.indexed}")], [system], out=tmp_path / "out")
    assert system.indexed == 2


def test_the_manifest_says_how_to_run_it_again(make_folder, words, tmp_path):
    suite = Suite((DatasetSpec(make_folder()),), ("bm25", "words"), seed=5)
    run_suite(suite, out=tmp_path / "out", command=["crisp-rag", "eval", "shop"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["command"] == ["crisp-rag", "eval", "shop"]
    assert manifest["suite"]["seed"] == 5 and manifest["suite"]["baseline"] == "bm25"
    assert set(manifest["checksums"]["shop"]) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    assert all(len(checksum) == 64 for checksum in manifest["checksums"]["shop"].values())
    assert {"crisp-rag", "numpy", "scipy", "torch"} <= set(manifest["packages"])
    assert manifest["systems"]["words"].startswith("f0f0")
    assert manifest["systems"]["bm25"].startswith("bm25s ")
