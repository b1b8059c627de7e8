"""What the loop works with, and how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from services.trainer.engine.corpus import Corpus
from services.trainer.engine.curve import Point
from services.trainer.engine.plan import StepPlan
from services.trainer.engine.resolution import of_another_release
from tuneforge.specs.spec import TrainingSpec


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is; saved with every checkpoint."""

    step: int = 0
    """Last finished step."""
    tokens: int = 0
    """Tokens of the rows so far, filling left out."""
    computed_tokens: int = 0
    """Positions computed so far: common beginnings of rows once, filling too."""
    train_seconds: float = 0.0
    """Time spent in steps so far, over all attempts."""
    loss: float | None = None
    """Loss of the last step."""
    evaluation_loss: float | None = None
    """Last validation loss."""
    curve: list[Point] = field(default_factory=list)
    """What steps gave so far, see `curve`."""
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    """Step and validation loss of every evaluation so far."""
    completions: list[str] = field(default_factory=list)
    """What the model said to the spec's prompts when it was asked last."""
    best_loss: float | None = None
    """Lowest validation loss."""
    best_step: int = 0
    """Step after which it was found; 0 before the first evaluation."""
    evaluations_since_best: int = 0
    """Evaluations that came after it."""
    first_loss: float | None = None
    """Loss of the first step."""
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last steps, as many as `guards` looks at."""
    usual_loss: float | None = None
    """Lowest median of them so far."""
    has_gradient: bool = False
    """Whether any step so far had a gradient."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Reads what a checkpoint has.

        Raises:
            TrainingFault: RESUME_MISMATCH, when another release wrote it.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise of_another_release(error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a loop works with."""

    spec: TrainingSpec
    """Fully resolved."""
    plan: StepPlan
    """The rows of every step."""
    corpus: Corpus
    """Rows to learn from."""
    validation: Corpus | None
    """Rows to measure on."""
    prompts: tuple[tuple[str, list[int]], ...]
    """Prompts to sample, as text and as token ids."""
    decode: Callable[[list[int]], str]
    """Makes text of token ids."""
    facts: Mapping[str, Any]
    """What was resolved; saved with every checkpoint."""
    last_step: int
    """Step after which the loop ends: that of the plan, or an earlier one when steps are only done again."""
