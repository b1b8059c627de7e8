"""What the assistant writes is found in the text of every family's template, and nothing else is learned."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tiny_model import make_tiny_model
from tests.unit.data import templates
from tuneforge.data.faults import RenderingError
from tuneforge.data.rendering import ChatFormat, Rendering
from tuneforge.data.rows import Row, RowShape, Turn

CONTROL = frozenset(
    ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>"]
) | {"<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"}


def _chat_format(template: str | None, bos: str = "<s>", eos: str = "</s>") -> ChatFormat:
    return ChatFormat(
        template=template, special_tokens={"bos_token": bos, "eos_token": eos}, control_tokens=CONTROL | {bos, eos}
    )


def _conversation(*turns: str, system: str = "") -> tuple[Turn, ...]:
    roles = ("user", "assistant") * len(turns)
    first = (Turn(role="system", content=system),) if system else ()
    return (*first, *(Turn(role=role, content=text) for role, text in zip(roles, turns, strict=False)))


def _learned(template: str, turns: tuple[Turn, ...]) -> list[str]:
    rendering = _chat_format(template).render_row(Row(id="", line=1, shape=RowShape.MESSAGES, turns=turns))
    return [rendering.text[start:end] for start, end in rendering.supervised]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (templates.SMOLLM2, ["yes<|im_end|>", "no, yes<|im_end|>"]),
        (templates.LLAMA3, ["yes<|eot_id|>", "no, yes<|eot_id|>"]),
        (templates.MISTRAL, [" yes</s>", " no, yes</s>"]),
        (templates.GEMMA, ["yes<end_of_turn>", "no, yes<end_of_turn>"]),
        (templates.QWEN3, ["yes<|im_end|>", "<think>\n\n</think>\n\nno, yes<|im_end|>"]),
        (templates.GENERATION_TAGS, ["yes<|im_end|>", "no, yes<|im_end|>"]),
        (templates.PHI3, ["yes<|end|>", "no, yes<|end|>"]),
    ],
)
def test_every_answer_and_its_end_is_learned(template: str, expected: list[str]) -> None:
    """Each assistant's turn is found with its end token, also where the same words stand in other turns."""
    assert _learned(template, _conversation("yes", "yes", "no, yes", "no, yes")) == expected


FAMILIES = [
    getattr(templates, name) for name in ("SMOLLM2", "LLAMA3", "MISTRAL", "GEMMA", "QWEN3", "GENERATION_TAGS", "PHI3")
]


@given(
    template=st.sampled_from(FAMILIES),
    contents=st.lists(st.sampled_from(("yes", " no ", "\nyes", "a</think>b", "\ue0010\ue001")), min_size=2, max_size=6),
    system=st.sampled_from(("", "yes")),
)
def test_what_is_remembered_of_a_template_changes_nothing(template: str, contents: list[str], system: str) -> None:
    """The second text of an order of speakers, found by its outline, is learned as one that is found turn by turn."""
    turns = _conversation(*contents[: len(contents) // 2 * 2], system=system)
    row = Row(id="", line=1, shape=RowShape.MESSAGES, turns=turns)
    one_by_one, remembering = _chat_format(template), _chat_format(template)
    roles = tuple(turn.role for turn in turns)
    one_by_one._outlines[roles] = None

    def written(chat_format: ChatFormat) -> Rendering | str:
        try:
            return chat_format.render_row(row)
        except RenderingError as error:
            return str(error)

    expected = written(one_by_one)
    assert written(remembering) == expected
    assert written(remembering) == expected
    if not isinstance(expected, str):
        assert remembering._outlines[roles] is not None


@pytest.mark.parametrize("template", [templates.SMOLLM2, templates.LLAMA3, templates.MISTRAL])
def test_a_system_turn_is_not_learned(template: str) -> None:
    """The system's text stays out, whether it has a turn of its own or goes into the user's."""
    [answer] = _learned(template, _conversation("Hi", "Hello", system="Hello"))
    assert answer.strip().startswith("Hello<") or answer.strip() == "Hello</s>"


@pytest.mark.parametrize("template", [templates.SMOLLM2, templates.LLAMA3, templates.MISTRAL, templates.GEMMA])
def test_the_prompt_stands_before_what_is_learned(template: str) -> None:
    """What inference sends is, letter for letter, what stood before the answer in training."""
    turns = _conversation("a", "b", "c", "d")
    rendering = _chat_format(template).render_row(Row(id="", line=1, shape=RowShape.MESSAGES, turns=turns))
    for (start, _), count in zip(rendering.supervised, (1, 3), strict=True):
        assert rendering.text[:start] == _chat_format(template).render_prompt(turns[:count])


def test_stripped_content_is_learned_as_it_is_written() -> None:
    """Templates that strip an answer are taken; the white space is not learned."""
    assert _learned(templates.GEMMA, _conversation("a", "\n b \n")) == ["b<end_of_turn>"]
    assert _learned(templates.SMOLLM2, _conversation("a", "\n b \n")) == ["\n b \n<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "turns", "words"),
    [
        (templates.GEMMA, _conversation("a", "b", system="s"), "System role not supported"),
        (templates.MISTRAL, (*_conversation("a"), *_conversation("b", "c")), "must alternate"),
        (templates.QWEN3, _conversation("a", "<think>\nhm\n</think>\n\nb"), "rewrites turn 2"),
        ("{% for m in messages[-2:] %}{{ m.content }}<|im_end|>{% endfor %}", _conversation(*"abcd"), "drops turn 1"),
        (
            "{% for m in messages if m.role != 'user' %}{{ m.content }}</s>{% endfor %}",
            _conversation(*"ab"),
            "drops turn 1",
        ),
        ("{% for m in messages %}{{ m.content * 2 }}</s>{% endfor %}", _conversation(*"ab"), "repeats or moves turn 1"),
        ("{% for m in messages %}{{ m.content | upper }}</s>{% endfor %}", _conversation(*"ab"), "rewrites turn 2"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", _conversation(*"ab"), "learn to stop"),
        ("{% for m in messages %}", _conversation(*"ab"), "no jinja2 template"),
        ("{{ messages[0].content + 1 }}", _conversation(*"ab"), "template fails"),
        ("{{ nothing.at.all }}", _conversation(*"ab"), "template fails"),
        ("{{ ''.__class__.__mro__ }}", _conversation(*"ab"), "template fails"),
        ("{{ 'a' * 10000000000 }}", _conversation(*"ab"), "too large"),
        ("{% for i in range(1000000) %}a{% endfor %}", _conversation(*"ab"), "template fails"),
        ("{{ messages.append(1) }}", _conversation(*"ab"), "template fails"),
        ("{% include 'x' %}", _conversation(*"ab"), "template fails"),
        (None, _conversation(*"ab"), "no chat template"),
        (templates.SMOLLM2, _conversation("a<|im_end|>", "b"), "`<|im_end|>`"),
        (templates.SMOLLM2, _conversation("a", "\ue000"), "U+E000"),
    ],
)
def test_what_cannot_be_written_faithfully_is_refused(template: str, turns: tuple[Turn, ...], words: str) -> None:
    """A template that refuses, drops, rewrites, fails or does more than writing gives a sentence with a cure."""
    with pytest.raises(RenderingError) as error:
        _learned(template, turns)
    assert words in error.value.message
    assert error.value.cure.endswith(".")


def test_plain_rows_learn_the_completion_and_the_end() -> None:
    """Prompt and completion are joined as they stand, and the end-of-text token is learned."""
    row = Row(id="", line=1, shape=RowShape.PROMPT_COMPLETION, prompt="1 + 1 =", completion=" 2")
    rendering = _chat_format(None).render_row(row)
    assert rendering.text == "1 + 1 = 2</s>"
    assert [rendering.text[start:end] for start, end in rendering.supervised] == [" 2</s>"]


def test_the_day_is_fixed_in_training() -> None:
    """A template that writes the date writes the same one in every run."""
    assert "26 Jul 2024" in _chat_format(templates.LLAMA3).render_prompt(_conversation("a"))


def test_a_format_is_read_from_a_models_folder(tmp_path: Path) -> None:
    """Template and special tokens come from the tokenizer's files; a template file of its own wins."""
    folder = make_tiny_model(tmp_path / "model")
    loaded = ChatFormat.load(folder)
    assert loaded.eos_token == "<|im_end|>"
    assert loaded.control_tokens == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert loaded.render_prompt(_conversation("a")) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    (folder / "chat_template.jinja").write_text("other", encoding="utf-8")
    other = ChatFormat.load(folder)
    assert other.template == "other"
    assert other.sha256 != loaded.sha256


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_missing_or_broken_tokenizer_files_are_named(tmp_path: Path, file: str) -> None:
    """A folder whose tokenizer cannot be read says which file is at fault."""
    folder = make_tiny_model(tmp_path / "model")
    (folder / file).write_text("{", encoding="utf-8")
    with pytest.raises(RenderingError, match=f"{file} of the model (is not JSON|cannot be read)"):
        ChatFormat.load(folder)
    (folder / file).unlink()
    with pytest.raises(RenderingError, match=f"no {file}"):
        ChatFormat.load(folder)
