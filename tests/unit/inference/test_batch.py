"""Batched decoding gives what transformers gives for each prompt alone, while rows end, are dropped and cancelled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from services.inference.engine.batch import Batch, Piece, Row, _parts
from services.inference.engine.sampling import Sampler
from services.inference.engine.text import TextStream
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.loading import LoadedBase, load_base
from tests.support.tiny_model import make_tiny_model
from tuneforge.architectures import SUPPORTED_ARCHITECTURES
from tuneforge.manifest import build

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [40], [70, 71, 72], [9] * 20, [100, 3, 17, 55]]


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedBase]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = make_tiny_model(Path(tmp_path_factory.mktemp("model")))
    manifest = build(folder)
    layer = LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    yield load_base([layer], dtype=torch.float32)
    torch.set_num_threads(threads)


def rows_of(base: LoadedBase, prompts: list[list[int]], limits: list[int]) -> list[Row]:
    """Returns rows that take the likeliest tokens; row i belongs to request i."""
    return [
        Row(
            request=index,
            index=0,
            prompt=prompt,
            limit=limit,
            sampler=Sampler.seeded(temperature=0, top_p=1, seed=0, row=0),
            text=TextStream(base.tokenizer),
        )
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]


def run(batch: Batch) -> list[Piece]:
    """Steps until all rows have ended."""
    pieces = []
    while not batch.is_done:
        pieces += batch.step()
    return pieces


def texts(pieces: list[Piece]) -> dict[int, str]:
    """Returns the whole text of each request."""
    whole: dict[int, str] = {}
    for piece in pieces:
        whole[piece.row.request] = whole.get(piece.row.request, "") + piece.text
    return whole


def generated(base: LoadedBase, prompt: list[int], limit: int, model: Any = None) -> str:
    """Returns what transformers' own `generate` makes of one prompt."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = (model or base.model).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
        )
    stream = TextStream(base.tokenizer)
    stops = base.stop_ids if model is None else frozenset()
    tokens = [int(token) for token in out[0, len(prompt) :] if int(token) not in stops]
    return "".join([*map(stream.push, tokens), stream.finish()])


@pytest.mark.parametrize("limits", [[12] * 5, [3, 30, 7, 1, 25]])
def test_a_batch_equals_generate(base: LoadedBase, limits: list[int]) -> None:
    """Prompts of different lengths, ending at different times, each get the text that `generate` gives it alone."""
    batch = Batch(lambda: base.model, base.stop_ids, rows_of(base, PROMPTS, limits))
    found = texts(run(batch))
    expected = [generated(base, prompt, limit) for prompt, limit in zip(PROMPTS, limits, strict=True)]
    assert [found.get(index, "") for index in range(len(PROMPTS))] == expected


def test_prompts_are_computed_in_parts(base: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts too many to be computed at once give the same texts in several parts."""
    whole = texts(run(Batch(lambda: base.model, base.stop_ids, rows_of(base, PROMPTS, [9] * 5))))
    monkeypatch.setattr("services.inference.engine.batch._SMALL_TOKENS", 4)
    assert len(_parts(sorted(map(len, PROMPTS)))) > 2
    assert texts(run(Batch(lambda: base.model, base.stop_ids, rows_of(base, PROMPTS, [9] * 5)))) == whole


def test_ended_rows_leave_the_batch(base: LoadedBase) -> None:
    """Once enough rows have ended, only the live ones are computed, without columns that are padding in all of them."""
    batch = Batch(lambda: base.model, frozenset(), rows_of(base, PROMPTS, [2, 40, 2, 2, 2]))
    for _ in range(4):
        batch.step()
    assert [row.request for row in batch.rows] == [1]
    assert batch._mask_bt.shape[1] == 1 + 3


def test_a_cancelled_row_ends_at_the_next_step(base: LoadedBase) -> None:
    """A cancelled request gives no further piece, and the others go on unchanged."""
    expected = texts(run(Batch(lambda: base.model, frozenset(), rows_of(base, PROMPTS, [10] * 5))))
    batch = Batch(lambda: base.model, frozenset(), rows_of(base, PROMPTS, [10] * 5))
    before = batch.step()
    batch.cancel(3)
    after = run(batch)
    assert not any(piece.row.request == 3 for piece in after)
    found = texts(before + after)
    assert {index: found[index] for index in (0, 1, 2, 4)} == {index: expected[index] for index in (0, 1, 2, 4)}


def test_a_batch_whose_rows_are_all_cancelled_is_done(base: LoadedBase) -> None:
    """A batch that nobody waits for computes nothing."""
    batch = Batch(lambda: base.model, frozenset(), rows_of(base, PROMPTS[:1], [10]))
    batch.cancel(0)
    assert batch.is_done
    assert batch.step() == []


def network(architecture: str, vocabulary: int) -> Any:
    """Returns a tiny random model of an architecture; attention windows are shorter than the prompts."""
    torch.manual_seed(1)
    model_class = getattr(transformers, architecture)
    sides = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    if hasattr(model_class.config_class(), "sliding_window"):
        sides |= {"sliding_window": 8}
    if architecture == "GPT2LMHeadModel":
        sides = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = model_class.config_class(vocab_size=vocabulary, **sides, **ends)
    return model_class(config).eval()


@pytest.mark.parametrize("architecture", SUPPORTED_ARCHITECTURES)
def test_every_architecture_is_decoded_right(base: LoadedBase, architecture: str) -> None:
    """Rows of every supported architecture, windows and all, get the text that `generate` gives each alone."""
    model = network(architecture, base.tokenizer.get_vocab_size())
    limits = [6, 14, 3, 9, 12]
    found = texts(run(Batch(lambda: model, frozenset(), rows_of(base, PROMPTS, limits))))
    expected = [generated(base, prompt, limit, model) for prompt, limit in zip(PROMPTS, limits, strict=True)]
    assert [found.get(index, "") for index in range(len(PROMPTS))] == expected


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=64))
def test_parts_hold_every_row_with_little_padding(lengths: list[int]) -> None:
    """Parts go through all rows in order; none is large and mostly padding, and none of several rows is too large."""
    lengths = sorted(lengths)
    parts = _parts(lengths)
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in parts:
        real, padded = sum(lengths[part]), len(lengths[part]) * lengths[part][-1]
        assert padded <= 512 or padded <= 1.25 * real
        assert padded <= 8192 or len(lengths[part]) == 1
