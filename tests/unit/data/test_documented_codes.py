"""The page on data sets names what there is."""

from pathlib import Path

from tuneforge.data.formats import Limits
from tuneforge.data.formats.layout import FORMATS
from tuneforge.data.learnable import SHAPES
from tuneforge.data.problems import ProblemCode
from tuneforge.data.shapes import RowShape
from tuneforge.specs.spec import ContinuedPretrainingTask, PreferenceTask, RewardModelTask, SupervisedTask

TASKS = {
    SupervisedTask: "supervised",
    ContinuedPretrainingTask: "continued pre-training",
    PreferenceTask: "preference",
    RewardModelTask: "reward model",
}
"""What the page calls them."""
PAGE = (Path(__file__).parents[3] / "docs/data-sets.md").read_text()


def test_every_code_shape_and_suffix_is_named() -> None:
    """Codes, shapes and suffixes of the code stand on the page, and what can be learned is said of each shape."""
    missing = [str(code) for code in ProblemCode if f"`{code}`" not in PAGE]
    missing += [suffix for suffix in FORMATS if f"`{suffix}`" not in PAGE and suffix not in {".jpeg", ".text"}]
    assert missing == []
    for shape in RowShape:
        [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {shape} |")]
        learned_by = line.split("|")[3]
        told = {task for task, words in TASKS.items() if words in learned_by}
        assert told == {task for task, shapes in SHAPES.items() if shape in shapes}, shape


def test_the_limits_are_those_of_the_code() -> None:
    """Figures on the page are not older than the code."""
    limits = Limits()
    assert f"a row {limits.row_bytes // 2**20} MiB, {limits.columns} columns" in PAGE
    assert f"{limits.decompression_ratio} times its size" in PAGE
    assert f"{limits.pixels // 10**6} million pixels" in PAGE
