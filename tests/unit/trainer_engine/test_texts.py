"""What a run knows of its texts before its first step."""

import json
from dataclasses import replace
from pathlib import Path

from services.trainer.engine.texts import Texts
from tests.support.training_run import tiny_inputs
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.defaults import with_defaults


def test_the_longest_row_may_be_one_to_measure_on(tmp_path: Path) -> None:
    """How rows are laid out depends on the longest one, and a model is measured by the same layouts as it learns."""
    task = tiny_inputs(tmp_path, rows=4)
    others = tmp_path / "others.jsonl"
    others.write_text(json.dumps({"prompt": "Say it. " * 20, "completion": "cat"}) + "\n", encoding="utf-8")
    spec = with_defaults(task.spec, Architecture(class_name="LlamaForCausalLM", config={}, tensors=()))
    texts = Texts(replace(task, validation=[others]), spec, lambda: None)
    assert texts.validation is not None
    assert texts.longest == max(texts.validation.lengths) > max(texts.train.lengths)
