"""Sketches estimate what texts have in common, find near duplicates, and do not care for the order of rows."""

import random
import string

import pytest

from tuneforge.data.lint.similarity import SHORTEST, THRESHOLD, Sketches, likeness, near_texts, sketch

_RNG = random.Random(5)
_WORDS = ["".join(_RNG.choices(string.ascii_lowercase, k=_RNG.randint(2, 9))) for _ in range(2000)]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(words))


def _changed(rng: random.Random, text: str, changes: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = rng.choice(_WORDS)
    return " ".join(words)


def _share(first: str, second: str) -> float:
    runs = [{text[place : place + 5] for place in range(len(text) - 4)} for text in (first, second)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def _near(texts: list[str]) -> set[tuple[str, str]]:
    sketches = Sketches()
    for number, text in enumerate(texts):
        sketches.add(number, text)
    rank = [text.encode() for text in texts]
    return {(texts[pair.later], texts[pair.earlier]) for pair in near_texts(sketches, rank)}


def test_recall_and_precision_are_as_stated() -> None:
    """Of pairs that share 90 % or more at least 97 in 100 are found; of those below 65 %, none of these."""
    rng = random.Random(1)
    found = {True: [0, 0], False: [0, 0]}
    for _ in range(900):
        first = _text(rng, 40)
        second = _changed(rng, first, rng.choice((1, 2, 10, 12)))
        share = _share(first, second)
        if share >= 0.9 or share < 0.65:
            counts = found[share >= 0.9]
            counts[0] += 1
            counts[1] += bool(_near([first, second]))
    assert found[True][0] > 200
    assert found[True][1] >= 0.97 * found[True][0]
    assert found[False][0] > 200
    assert found[False][1] == 0


def test_likeness_is_close_to_the_true_share() -> None:
    """On average the estimate is within a few hundredths."""
    rng = random.Random(2)
    errors = []
    for _ in range(200):
        first = _text(rng, 30)
        second = _changed(rng, first, rng.randint(0, 15))
        one, other = sketch(first), sketch(second)
        assert one is not None
        assert other is not None
        errors.append(abs(likeness(one, other) - _share(first, second)))
    assert sum(errors) / len(errors) < 0.05


def test_groups_do_not_depend_on_the_order() -> None:
    """The pairs of a shuffled list are the same pairs."""
    rng = random.Random(3)
    texts = []
    for _ in range(20):
        text = _text(rng, 25)
        texts += [text, *(_changed(rng, text, 1) for _ in range(4))]
    first = _near(texts)
    assert len(first) >= 50
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        assert _near(texts) == first


def test_buckets_full_of_one_beginning_stay_cheap_and_alike_texts_are_still_found() -> None:
    """Many different texts with a common half are told apart, and a near copy among them is found."""
    rng = random.Random(4)
    beginning = _text(rng, 20)
    texts = [f"{beginning} {_text(rng, 30)}" for _ in range(500)]
    texts.append(_changed(rng, texts[17], 1))
    assert (texts[17], texts[-1]) in _near(texts) or (texts[-1], texts[17]) in _near(texts)
    assert len(_near(texts)) == 1


@pytest.mark.parametrize("text", ["", "a" * (SHORTEST - 1), "  " * 100])
def test_short_texts_have_no_sketch(text: str) -> None:
    """Below the least length texts are not compared."""
    assert sketch(text) is None


@pytest.mark.parametrize("text", ["a" * 200, "\u4e2d\u6587" * 60, "\U0001f600" * 50, "ab" * 5000])
def test_odd_texts_are_like_themselves(text: str) -> None:
    """Texts of few different runs, of any script and of any length have a sketch."""
    made = sketch(text)
    assert made is not None
    assert likeness(made, made) == 1
    assert THRESHOLD < 1
