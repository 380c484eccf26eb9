"""Saying that there is no answer: a regression over figures, thresholds from questions with known outcome."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.pipelines.abstention import SHIPPED, Calibration, best_threshold, fit, load_for, risk_curve
from crisp_rag.pipelines.features import NAMES, READ
from crisp_rag.pipelines.thresholds import find_threshold, read_questions


def rows(count: int = 400):
    """Figures of which one tells, one does not, and one is always the same."""
    random = np.random.default_rng(0)
    labels = random.random(count) < 0.3
    tells = labels + random.normal(0, 0.7, count)
    noise = random.normal(0, 5, count)
    return [{"tells": float(a), "noise": float(b), "same": 1.0} for a, b in zip(tells, noise)], labels.tolist()


def test_the_fit_is_the_regression_that_scikit_learn_finds():
    linear = pytest.importorskip("sklearn.linear_model")
    figures, labels = rows()
    calibration = fit(figures, labels, fingerprint="f", l2=1.0)
    values = np.array([[row["tells"], row["noise"]] for row in figures])
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    model = linear.LogisticRegression(C=1.0, class_weight={True: 0.5 / np.mean(labels), False: 0.5 / (1 - np.mean(labels))})
    expected = model.fit(scaled, labels).predict_proba(scaled)[:, 1]
    found = [calibration.probability(row) for row in figures]
    assert np.allclose(found, expected, atol=2e-3)
    assert abs(calibration.weights["tells"]) > 10 * abs(calibration.weights["noise"])


def test_both_kinds_of_question_weigh_the_same():
    figures, labels = rows()
    found = np.array([fit(figures, labels, fingerprint="f").probability(row) for row in figures])
    assert abs(found[np.array(labels)].mean() + found[~np.array(labels)].mean() - 1) < 0.05


@pytest.mark.parametrize("labels", [[True, True], [False, False], [True]])
def test_a_fit_needs_both_kinds(labels):
    with pytest.raises(InvalidInputError, match="have an answer and questions that have none"):
        fit([{"a": 1.0}, {"a": 2.0}], labels, fingerprint="f")


def test_a_calibration_is_saved_and_read_again(tmp_path):
    calibration = fit(*rows(), fingerprint="f").with_threshold(0.7)
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"threshold": 1}'])
def test_a_damaged_calibration_is_named(tmp_path, content):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"c\.json is no calibration"):
        Calibration.load(path)


def test_the_curve_says_what_each_threshold_gives():
    curve = risk_curve([0.1, 0.2, 0.3, 0.4], [False, True, False, True])
    assert (curve[0].answered, curve[0].declined) == (1.0, 0.0)
    assert [point.threshold for point in curve] == pytest.approx([0.1, 0.15, 0.25, 0.35])
    assert [point.accuracy for point in curve] == pytest.approx([0.5, 0.75, 0.5, 0.75])
    assert best_threshold(curve) == pytest.approx(0.15)
    assert best_threshold(curve, answered=1.0) == pytest.approx(0.15), "the strictest that answers them all"
    assert best_threshold(curve, answered=0.5) == pytest.approx(0.35)


def test_equal_evidence_gives_one_threshold():
    (point,) = risk_curve([0.5, 0.5], [True, False])
    assert (point.answered, point.declined) == (1.0, 0.0)


def test_the_shipped_calibration_is_for_the_default_encoder_and_its_figures(default_encoder):
    calibration = Calibration.load(SHIPPED)
    assert set(calibration.weights) <= {*NAMES, *READ}
    assert load_for(default_encoder.with_pooling("none")) == calibration
    assert load_for(default_encoder.with_pooling("8x16").with_pooling("none")) == calibration, "whatever the budget"
    assert load_for(object()) is None


def test_a_threshold_is_found_on_own_questions(tmp_path, words):
    with CrispIndex.create(tmp_path / "x.crisp", words) as index:
        index.add([Passage("1", "Refunds take five days."), Passage("2", "Parcels abroad take nine days.")])
        questions = [
            ("how long do refunds take", True),
            ("parcels abroad take days", True),
            ("who won the cup", False),
            ("why is grass green", False),
        ]
        found = find_threshold(index, questions)
        assert (found.answered, found.declined, found.answerable, found.unanswerable) == (1.0, 1.0, 2, 2)
        assert json.loads(json.dumps(found.to_dict()))["curve"][0]["answered"] == 1.0
        with pytest.raises(InvalidInputError, match="have an answer and questions that have none"):
            find_threshold(index, questions[:2])
        with pytest.raises(InvalidInputError, match="answered is a share"):
            find_threshold(index, questions, answered=0)


def test_questions_are_read_from_json_lines(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a?", "answerable": true}\n\n{"question": "b?", "answerable": false}\n', encoding="utf-8")
    assert read_questions(path) == [("a?", True), ("b?", False)]


@pytest.mark.parametrize("line", ["{", "[]", '{"question": "a"}', '{"question": " ", "answerable": true}',
                                  '{"question": "a", "answerable": "yes"}'])  # fmt: skip
def test_a_malformed_question_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"question": "a?", "answerable": true}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"q\.jsonl, line 2"):
        read_questions(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_questions(tmp_path / "missing.jsonl")
