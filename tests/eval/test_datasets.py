from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import Document, load_beir
from crisp_rag.eval.records import read_trec, trec


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_folder_in_beirs_form_is_read_in_file_order(make_folder):
    dataset = load_beir(make_folder())
    assert dataset.name == "shop"
    assert list(dataset.corpus) == ["d1", "d2", "d3", "d4"]
    assert dataset.corpus["d1"] == Document("Refunds", "A refund takes five working days.")
    assert list(dataset.queries) == ["q1", "q2", "q3"]
    assert dataset.qrels == {"q1": {"d1": 1}, "q2": {"d4": 1}, "q3": {"d2": 1}}
    assert dataset.binary_threshold == 1


def test_the_encoded_text_is_title_line_break_text_without_an_empty_part():
    assert Document("Refunds", "Five days.").encoded_text == "Refunds\nFive days."
    assert Document("", "Five days.").encoded_text == "Five days."
    assert Document("Refunds", " ").encoded_text == "Refunds"


def test_a_document_without_words_stays_in_the_corpus_but_is_given_to_no_system(make_folder):
    folder = make_folder(documents={"d1": ("", " "), "d2": ("", "Parcels."), "d4": ("Hours", "")})
    dataset = load_beir(folder)
    assert list(dataset.corpus) == ["d1", "d2", "d4"]
    assert dataset.texts() == (["d2", "d4"], ["Parcels.", "Hours"])


def test_only_queries_judged_in_the_split_are_taken(make_folder):
    dataset = load_beir(make_folder(qrels={"q2": {"d4": 1}}, split="dev"), split="dev")
    assert list(dataset.queries) == ["q2"]


def test_a_limit_takes_the_first_queries_in_the_order_of_queries_jsonl(make_folder):
    folder = make_folder(qrels={"q3": {"d2": 1}, "q2": {"d4": 1}, "q1": {"d1": 1}})
    dataset = load_beir(folder, limit_queries=2)
    assert list(dataset.queries) == list(dataset.qrels) == ["q1", "q2"]


@pytest.mark.parametrize(("highest", "threshold"), [(1, 1), (2, 1), (3, 2), (4, 1)])
def test_on_trecs_scale_of_0_to_3_only_grades_from_2_on_are_relevant(make_folder, highest, threshold):
    folder = make_folder(qrels={"q1": {"d1": 1}, "q2": {"d4": highest}})
    assert load_beir(folder).binary_threshold == threshold


def test_the_scale_is_that_of_the_whole_split_whatever_the_limit(make_folder):
    folder = make_folder(qrels={"q1": {"d1": 1}, "q2": {"d4": 3}})
    assert load_beir(folder, limit_queries=1).binary_threshold == 2


def test_reference_answers_are_kept_with_their_queries(make_folder):
    folder = make_folder(queries={})
    append(folder / "queries.jsonl", '{"_id": "q1", "text": "how long?", "answers": ["five days"]}\n')
    append(folder / "queries.jsonl", '{"_id": "q2", "text": "where?"}\n{"_id": "q3", "text": "what?", "answers": []}\n')
    assert load_beir(folder).answers == {"q1": ["five days"], "q3": []}


def test_a_qrels_file_without_a_header_loses_no_judgement(make_folder):
    folder = make_folder()
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td4\t1\n")
    assert load_beir(folder).qrels == {"q1": {"d1": 1}, "q2": {"d4": 1}}


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(make_folder, missing):
    folder = make_folder()
    (folder / missing).unlink()
    with pytest.raises(DatasetError, match="is missing") as caught:
        load_beir(folder)
    assert str(folder / missing) in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        load_beir(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("corpus.jsonl", '{"_id": "d5", "te', "line 5: this is not JSON"),
        ("corpus.jsonl", "[1, 2]", "line 5: expected a JSON object"),
        ("corpus.jsonl", '{"text": "no id"}', "line 5: '_id' must be a string"),
        ("corpus.jsonl", '{"_id": "", "text": "x"}', "line 5: '_id' must be a string"),
        ("corpus.jsonl", '{"_id": "d5", "title": "no text"}', "line 5: 'text' must be a string, got None"),
        ("corpus.jsonl", '{"_id": "d5", "title": 7, "text": "x"}', "line 5: 'title' must be a string, got 7"),
        ("corpus.jsonl", '{"_id": "d1", "text": "again"}', "line 5: the id 'd1' is there a second time"),
        ("queries.jsonl", '{"_id": "q4", "text": 3}', "line 4: 'text' must be a string"),
        ("queries.jsonl", '{"_id": "q1", "text": "again"}', "line 4: the id 'q1' is there a second time"),
        ("queries.jsonl", '{"_id": "q4", "text": "x", "answers": "y"}', "line 4: 'answers' must be a list"),
        ("qrels/test.tsv", "q1\td2", "line 5: expected query id, document id and grade"),
        ("qrels/test.tsv", "q1\td2\thigh", "line 5: a grade is a whole number, got 'high'"),
        ("qrels/test.tsv", "q1\td2\t0.5", "line 5: a grade is a whole number, got '0.5'"),
        ("qrels/test.tsv", "q9\td2\t1", "line 5: there is no query 'q9'"),
        ("qrels/test.tsv", "q1\td1\t2", "line 5: query 'q1' and document 'd1' are judged twice"),
        ("corpus.jsonl", '{"_id": "d\\ud83d", "text": "x"}', "line 5: '_id' 'd\\ud83d' holds half a character"),
        ("queries.jsonl", '{"_id": "\\udc00", "text": "x"}', "line 4: '_id' '\\udc00' holds half a character"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(make_folder, file, text, complaint):
    folder = make_folder()
    append(folder / file, text + "\n")
    with pytest.raises(DatasetError) as caught:
        load_beir(folder)
    assert str(caught.value).startswith(f"{folder / file}, {complaint}")


def test_a_judged_query_without_words_is_named_and_one_that_is_not_judged_does_no_harm(make_folder):
    folder = make_folder(queries={"q1": " ", "q2": "when?"}, qrels={"q2": {"d4": 1}})
    assert list(load_beir(folder).queries) == ["q2"]
    append(folder / "qrels" / "test.tsv", "q1\td1\t1\n")
    with pytest.raises(DatasetError, match=r"queries\.jsonl, line 1: the query 'q1' has no words"):
        load_beir(folder)


def test_bytes_that_are_not_utf8_are_reported_with_the_file(make_folder):
    folder = make_folder()
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "caf\xe9"}\n')
    with pytest.raises(DatasetError, match=r"corpus\.jsonl, after line 0: this is not UTF-8"):
        load_beir(folder)


def test_an_empty_corpus_and_empty_judgements_are_refused(make_folder):
    folder = make_folder(qrels={})
    with pytest.raises(DatasetError, match=r"test\.tsv has no judgements"):
        load_beir(folder)
    (folder / "corpus.jsonl").write_text("")
    with pytest.raises(DatasetError, match=r"corpus\.jsonl has no document"):
        load_beir(folder)


def test_judgements_of_documents_that_are_missing_are_counted_and_measured(make_folder):
    dataset = load_beir(make_folder(qrels={"q1": {"d1": 1, "d9": 1, "d8": 2}, "q2": {"d4": 1}}))
    assert dataset.qrels["q1"] == {"d1": 1, "d9": 1, "d8": 2}
    assert dataset.notes == ("2 judgements of test.tsv name a document that corpus.jsonl lacks and no system can find.",)
    assert dataset.without_missing().qrels == {"q1": {"d1": 1}, "q2": {"d4": 1}}


def test_judgements_of_another_corpus_are_refused(make_folder):
    with pytest.raises(DatasetError, match="do not belong together"):
        load_beir(make_folder(qrels={"q1": {"x1": 1}, "q2": {"x2": 1}}))


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 1\nq2 0 d4 1\n", "q1\t0\td1\t1\nq2\tQ0\td4\t1\n", "q1   0  d1   1\r\nq2 0 d4 1\r\n",
        "query iteration doc grade\nq1 0 d1 1\nq2 0 d4 1\n", "q1 d1 1\nq2 d4 1\n", "q1\td1\t1.0\nq2\td4\t1.\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t1.000\nq2\td4\t1\nq2\td4\t1.0\n",
    ],
)  # fmt: skip
def test_judgements_in_trecs_form_and_grades_with_a_point_are_read(make_folder, text):
    folder = make_folder()
    (folder / "qrels" / "test.tsv").write_text(text)
    assert load_beir(folder).qrels == {"q1": {"d1": 1}, "q2": {"d4": 1}}


def test_packed_files_are_read(make_folder):
    folder = make_folder()
    before = load_beir(folder)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert load_beir(folder) == before
    packed = folder / "corpus.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"corpus\.jsonl\.gz cannot be read"):
        load_beir(folder)


def test_lines_that_are_there_twice_count_once(make_folder):
    folder = make_folder()
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        append(folder / name, (folder / name).read_text().splitlines()[-1] + "\n")
    dataset = load_beir(folder)
    assert (len(dataset.corpus), len(dataset.queries), dataset.qrels["q3"]) == (4, 3, {"d2": 1})
    assert len(dataset.notes) == 3 and all(note.startswith("1 ") for note in dataset.notes)


@pytest.mark.parametrize("escape", ["\\ud83d", "\\udc00 x", "a\\udfff\\ud800"])
def test_halves_of_characters_in_a_text_are_replaced_and_counted(make_folder, escape):
    folder = make_folder()
    append(folder / "corpus.jsonl", f'{{"_id": "d5", "title": "{escape}", "text": "The {escape} shop."}}\n')
    dataset = load_beir(folder)
    assert "\ufffd" in dataset.corpus["d5"].text and "\ufffd" in dataset.corpus["d5"].title
    dataset.corpus["d5"].encoded_text.encode("utf-8")
    assert "lone surrogates" in dataset.notes[0]


def test_pairs_of_surrogates_are_characters(make_folder):
    folder = make_folder()
    append(folder / "corpus.jsonl", '{"_id": "d\\ud83d\\ude00", "text": "A smile \\ud83d\\ude00."}\n')
    dataset = load_beir(folder)
    assert dataset.corpus["d😀"].text == "A smile 😀." and dataset.notes == ()


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1), min_size=1, unique=True))
def test_ids_of_any_characters_survive_run_files(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("runs") / "a.trec"
    run = {ids[0]: [(id_, 1.0 / rank) for rank, id_ in enumerate(ids, 1)]}
    path.write_text(trec(run, "x"), encoding="utf-8", newline="")
    assert read_trec(path) == run


def test_a_limit_below_one_is_refused(make_folder):
    with pytest.raises(InvalidInputError, match="at least 1, got 0"):
        load_beir(make_folder(), limit_queries=0)


def test_unanswerable_queries_are_none_of_those_that_are_measured(make_folder):
    queries = {"q1": "refund", "u1": "owner", "u2": "colour", "both": "closed"}
    qrels, hopeless = {"q1": {"d1": 1}, "both": {"d4": 1}}, {"u2": {"d1": 1}, "u1": {"d1": 1}, "both": {"d4": 1}}
    folder = make_folder(queries=queries, qrels=qrels, unanswerable=hopeless)
    dataset = load_beir(folder)
    assert list(dataset.queries) == ["q1", "both"] and dataset.unanswerable == {"u1": "owner", "u2": "colour"}
    assert list(load_beir(folder, limit_queries=1).unanswerable) == ["u1"]
    assert load_beir(folder, split="unanswerable").unanswerable == {}
