"""Knowing what the documents do not say: evidence for an answer from a handful of figures, and a threshold for it.

    calibration = Calibration.load()                    # the shipped one, of the default encoder
    calibration.probability(features)                   # that the passages hold an answer

    curve = risk_curve(evidence, answerable)            # what each threshold would give
    threshold = best_threshold(curve)

The best sentence's MaxSim tells what the documents do not speak of at all; it tells little where they speak of something
similar.  So other figures look at what does *not* match: the question's worst matched word, names and numbers that are
nowhere near the sentence, a "not" on one side only, a word whose opposite the sentence has.  A logistic regression
over them was fitted by ``benchmarks/reading.py --fit`` on SQuAD 1.1's training questions and on questions made from them
that have no answer; ``calibration.json`` holds its numbers, and ``crisp-rag calibrate`` fits a threshold to own questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crisp_rag.errors import InvalidInputError

SHIPPED = Path(__file__).parent / "calibration.json"
"""Of the default encoder."""
KEEP, SUPPORT = 0.9, 0.6
"""Of encoders without a calibration."""
SHIPPED_LIGHT = SHIPPED.with_name("calibration-crisp-minilm.json")
_ALL_SHIPPED = (SHIPPED, SHIPPED_LIGHT)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic regression over named figures, and the threshold that its result is held against.

    Args:
        fingerprint: Of the encoder's token vectors that it was fitted for.
        threshold: Probability below which a question is declined.
        bias: The regression's constant.
        weights: Its weight of each figure.
        centres: What is taken off each figure first: its mean where it was fitted.
        scales: What each is divided by then: its standard deviation there.
        fitted_on: What it was fitted on, in words.
        keep: A second sentence is quoted if it scores at least this share of the best one: encoders differ in how far
            apart they score texts.
        support: MaxSim over the largest possible one from which a passage supports a statement.
    """

    fingerprint: str
    threshold: float
    bias: float
    weights: dict[str, float]
    centres: dict[str, float]
    scales: dict[str, float]
    fitted_on: str = ""
    keep: float = KEEP
    support: float = SUPPORT

    @staticmethod
    def load(path: str | Path = SHIPPED) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            InvalidInputError: if it is missing or malformed.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            calibration = Calibration(**values)
            names = set(calibration.weights)
            if names != set(calibration.centres) or names != set(calibration.scales):
                raise ValueError("weights, centres and scales name different figures")
            if not all(scale > 0 for scale in calibration.scales.values()):
                raise ValueError("a scale is not above 0")
            return calibration
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"{path} is no calibration: {error}; make one with crisp-rag calibrate.") from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def with_threshold(self, threshold: float) -> Calibration:
        """The same with another threshold."""
        return replace(self, threshold=threshold)

    def probability(self, features: Mapping[str, float]) -> float:
        """That the passages hold an answer, in (0, 1)."""
        total = self.bias
        for name, weight in self.weights.items():
            total += weight * (features[name] - self.centres[name]) / self.scales[name]
        return float(1 / (1 + np.exp(-np.clip(total, -30, 30))))


def fit(
    rows: Sequence[Mapping[str, float]],
    answerable: Sequence[bool],
    *,
    fingerprint: str,
    weights: Sequence[float] | None = None,
    l2: float = 1.0,
    iterations: int = 50,
    fitted_on: str = "",
) -> Calibration:
    """Fit the regression by Newton's method, both kinds of question weighing the same.

    Args:
        rows: The figures of each question, all with the same names.
        answerable: Whether it has an answer; both kinds are needed.
        fingerprint: See :class:`Calibration`.
        weights: How much each question counts among those of its kind; alike by default.
        l2: Strength of the penalty on the weights, in questions.
        iterations: Newton steps at most.
        fitted_on: See :class:`Calibration`.

    Raises:
        InvalidInputError: if a kind of question is missing, or figures are.
    """
    labels = np.asarray(answerable, dtype=float)
    if len(rows) != len(labels) or not 0 < labels.sum() < len(labels):
        raise InvalidInputError("A calibration is fitted on questions that have an answer and questions that have none.")
    names = list(rows[0])
    if any(set(row) != set(names) for row in rows):
        raise InvalidInputError("Every question needs the same figures.")
    values = np.array([[row[name] for name in names] for row in rows])
    centres, scales = values.mean(axis=0), values.std(axis=0)
    scales[scales < 1e-9] = 1.0
    design = np.concatenate([(values - centres) / scales, np.ones((len(values), 1))], axis=1)
    counts = np.ones(len(labels)) if weights is None else np.array(weights, dtype=float)
    for kind in (0, 1):
        counts[labels == kind] *= 0.5 * len(labels) / counts[labels == kind].sum()
    penalty = np.full(len(names) + 1, l2)
    penalty[-1] = 1e-9
    solution = np.zeros(len(names) + 1)
    for _ in range(iterations):
        probability = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (counts * (probability - labels)) + penalty * solution
        curvature = (design * (counts * probability * (1 - probability))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        solution -= step
        if np.abs(step).max() < 1e-8:
            break
    calibration = Calibration(
        fingerprint=fingerprint, threshold=0.5, bias=float(solution[-1]),
        weights={name: float(value) for name, value in zip(names, solution)},
        centres={name: float(value) for name, value in zip(names, centres)},
        scales={name: float(value) for name, value in zip(names, scales)}, fitted_on=fitted_on,
    )  # fmt: skip
    return calibration


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a threshold gives.

    Args:
        threshold: Questions with less evidence are declined.
        answered: Share of answerable questions that are answered.
        declined: Share of unanswerable questions that are declined.
        accuracy: The mean of the two: what counts if both kinds are equally likely.
    """

    threshold: float
    answered: float
    declined: float
    accuracy: float


def risk_curve(evidence: Sequence[float], answerable: Sequence[bool], points: int = 101) -> list[CurvePoint]:
    """What each threshold gives, from answering everything to declining almost everything.

    Args:
        evidence: A figure a question, higher where the reader is surer.
        answerable: Whether the question has an answer; both kinds are needed.
        points: Thresholds at most, spread over the questions' evidence.

    Raises:
        InvalidInputError: if a kind of question is missing.
    """
    values, labels = np.asarray(evidence, dtype=float), np.asarray(answerable, dtype=bool)
    if len(values) != len(labels) or labels.all() or not labels.any():
        raise InvalidInputError("A threshold is fitted on questions that have an answer and questions that have none.")
    distinct = np.unique(values)
    # Between two neighbours, so that no question lies on a threshold.
    borders = np.concatenate([[distinct[0]], (distinct[:-1] + distinct[1:]) / 2])
    chosen = borders[np.unique(np.linspace(0, len(borders) - 1, min(points, len(borders))).round().astype(int))]
    curve = []
    for threshold in chosen.tolist():
        answered, declined = float((values[labels] >= threshold).mean()), float((values[~labels] < threshold).mean())
        curve.append(CurvePoint(threshold, answered, declined, (answered + declined) / 2))
    return curve


def best_threshold(curve: Sequence[CurvePoint], answered: float | None = None) -> float:
    """The threshold with the best accuracy; or, with ``answered``, the strictest that still answers such a share."""
    if answered is None:
        return max(curve, key=lambda point: point.accuracy).threshold
    kept = [point for point in curve if point.answered >= answered]
    return max(kept, key=lambda point: point.threshold).threshold if kept else curve[0].threshold


def load_for(encoder: Any) -> Calibration | None:
    """The calibration that ships for this token encoder, None if none does."""
    fingerprint = getattr(encoder, "fingerprint", None)
    if fingerprint is None:
        return None
    shipped = {each.fingerprint: each for each in (Calibration.load(path) for path in _ALL_SHIPPED if path.is_file())}
    if fingerprint in shipped:
        return shipped[fingerprint]
    former = getattr(encoder, "former_fingerprints", ())  # asked for last: each is a digest of all weights
    return next((shipped[each] for each in former if each in shipped), None)
