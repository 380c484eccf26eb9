"""Codecs: what comes back is near what went in, and scores are those of what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.codecs import CODECS, WIDE_VECTORS, check_codec, codec_at, codec_for
from crisp_rag.index.codecs.base import scales_of
from crisp_rag.index.codecs.rotation import rotation
from crisp_rag.index.codecs.twolevel import FiveBitCodec, FourBitCodec, SevenBitCodec, TwoLevelCodec
from crisp_rag.index.sketch import Sketch, eight_bits, whole_product

# The error that is left of a vector's energy, at most, for vectors of any kind that are wide enough.
ERRORS = {"float16": 1e-6, "int8": 1e-3, "5bit": 0.003, "4bit": 0.012, "7bit": 0.0003, "ternary": 0.26, "1bit": 0.60}
BYTES_384 = {"float16": 768, "int8": 388, "5bit": 244, "4bit": 196, "7bit": 340, "ternary": 81, "1bit": 52}


def vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors of all lengths, some with one large component, one of zeros."""
    random = np.random.default_rng(seed)
    made = random.normal(size=(count, dim)).astype(np.float32)
    made[: count // 2, 0] *= 5
    made *= random.uniform(0.1, 10, size=(count, 1)).astype(np.float32)
    made[-1] = 0
    return made


@pytest.mark.parametrize("codec", CODECS)
def test_what_comes_back_is_near_what_went_in(codec: str) -> None:
    coding, given = codec_for(codec, 384), vectors(400, 384)
    planes = coding.encode(given)
    back = coding.turn_back(coding.decode(planes))
    energy = (given**2).sum(axis=1)[:-1]
    error = ((back - given) ** 2).sum(axis=1)
    assert (error[:-1] / energy).mean() < ERRORS[codec]
    assert not back[-1].any(), "zeros stay zeros"
    assert sum(plane.shape[1] for plane in planes) == sum(coding.planes) == BYTES_384[codec]


@pytest.mark.parametrize("dim", [1, 7, 16, 33])
@pytest.mark.parametrize("codec", CODECS)
def test_float_queries_are_scored_against_what_would_come_back(codec: str, dim: int) -> None:
    coding, given = codec_for(codec, dim), vectors(50, dim)
    queries = np.random.default_rng(1).normal(size=(3, dim)).astype(np.float32)
    planes = coding.encode(given)
    assert [plane.dtype for plane in planes] == [np.uint8] * len(planes)
    assert [plane.shape for plane in planes] == [(50, width) for width in coding.planes]
    scores = coding.similarity(coding.turn(queries), planes)
    assert scores == pytest.approx(queries @ coding.turn_back(coding.decode(planes)).T, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("codec", ["5bit", "4bit", "7bit", "ternary", "1bit"])
def test_a_query_that_is_a_stored_vector_gets_the_score_that_it_should(codec: str) -> None:
    coding, given = codec_for(codec, 64), vectors(30, 64)
    scores = coding.similarity(coding.turn(given), coding.encode(given)).diagonal()
    assert scores == pytest.approx((given**2).sum(axis=1), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_a_vector_is_coded_the_same_alone_and_among_others(codec: str) -> None:
    coding, given = codec_for(codec, 24), vectors(20, 24)
    together = coding.decode(coding.encode(given))
    alone = np.concatenate([coding.decode(coding.encode(given[i : i + 1])) for i in range(20)])
    assert together == pytest.approx(alone, rel=1e-3, abs=1e-3)


# What Max (1960) gives as the least error of 16 and of 32 levels; of 128 Panter and Dite's (1951) limit is 0.000166.
@pytest.mark.parametrize(("codec", "error"), [(FourBitCodec, 0.009497), (FiveBitCodec, 0.002499), (SevenBitCodec, 0.000163)])
def test_the_levels_are_the_best_for_a_gaussian(codec: type[TwoLevelCodec], error: float) -> None:
    assert codec.error == pytest.approx(error, abs=min(1e-5, error / 100))
    levels = codec.magnitudes
    drawn = np.abs(np.random.default_rng(0).normal(size=400_000))
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, drawn)
    means = np.bincount(nearest, weights=drawn) / np.bincount(nearest)
    assert means == pytest.approx(levels, abs=0.02)
    assert ((drawn - levels[nearest]) ** 2).mean() == pytest.approx(error, rel=0.02)


def test_the_rotation_is_one_and_the_same_everywhere() -> None:
    turn = rotation(8)
    assert turn @ turn.T == pytest.approx(np.eye(8), abs=1e-6)
    assert turn[0, :3] == pytest.approx([-0.49872, -0.49710, -0.18106], abs=1e-4), "a part of the format of stored vectors"


@pytest.mark.parametrize("codec", ["5bit", "4bit", "7bit", "1bit"])
def test_the_sign_plane_scores_as_signs_would(codec: str) -> None:
    coding, given = codec_for(codec, 40), vectors(60, 40)
    queries = np.random.default_rng(1).normal(size=(4, 40)).astype(np.float32)
    planes = coding.encode(given)
    signs, scales = (planes[number] for number in coding.sketch[:2])
    estimate = Sketch(coding.turn(queries)).similarity(signs, scales_of(scales))
    right = coding.turn(queries) @ (np.where(coding.turn(given) >= 0, 1, -1) * scales_of(scales)[:, None]).T
    assert estimate == pytest.approx(right, abs=0.05 * np.abs(right).max())
    assert estimate[:, -1] == pytest.approx(0)


@pytest.mark.parametrize("codec", ["5bit", "4bit", "7bit", "1bit"])
def test_estimates_by_the_sign_plane_are_right_on_average(codec: str) -> None:
    coding, given = codec_for(codec, 384), vectors(300, 384)[:-1]
    queries = given + np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    planes = coding.encode(given)
    scales = scales_of(planes[coding.sketch.scales]) * coding.sketch.factor
    estimate = np.diag(Sketch(coding.turn(queries)).similarity(planes[coding.sketch.signs], scales))
    right = (queries * given).sum(axis=1)
    assert float((estimate - right).mean()) == pytest.approx(0, abs=0.01 * float(right.mean()))


def test_whole_numbers_are_multiplied_exactly_with_and_without_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    left, right = (random.integers(-127, 128, size=(n, 48)).astype(np.int8) for n in (33, 8))
    expected = left.astype(np.int64) @ right.T.astype(np.int64)
    assert (whole_product(left, right) == expected).all()
    monkeypatch.setattr("crisp_rag.index.sketch._has_whole_product", lambda: False)
    assert (whole_product(left, right) == expected).all()


def test_eight_bits_are_off_by_half_a_step() -> None:
    given = vectors(20, 12)
    whole, steps = eight_bits(given)
    assert (np.abs(whole * steps[:, None] - given) <= steps[:, None] * 0.5001).all()


def test_an_unknown_codec_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInputError, match="'int3'; there are auto, 7bit, 5bit, 4bit, float16, int8, ternary, 1bit"):
        check_codec("int3")


def test_by_default_the_size_of_an_index_decides_and_what_was_narrowed_stays_narrow() -> None:
    assert codec_at("auto", 0) == codec_at("auto", WIDE_VECTORS, {"7bit"}) == "7bit"
    assert codec_at("auto", WIDE_VECTORS + 1, {"7bit"}) == codec_at("auto", 10, {"5bit", "7bit"}) == "5bit"
    assert [codec_at(name, 2 * WIDE_VECTORS, CODECS) for name in CODECS] == list(CODECS)
