"""The texts of a run as tokens: rows to learn from, rows to measure on, prompts to complete, and completions back.

All are written in the form of the base's chat template, so a model is measured as it is taught and served.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from services.modelkit.loading import TOKENIZER_FILES, check_vocabulary, read_config, stop_ids
from services.trainer.engine.corpus import Corpus, read_corpus
from services.trainer.engine.token_cache import key_of
from services.trainer.engine.training_task import RowChoice, TrainingFault, TrainingInputs
from tuneforge.data.learnable import shapes_of
from tuneforge.data.masks import encode_all, encode_prompt
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Turn
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.errors import Reason
from tuneforge.specs.spec import OverlongPolicy, TrainingSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Texts:
    """Rows and prompts of a run, by the tokenizer and the chat template of its base."""

    def __init__(self, task: TrainingInputs, spec: TrainingSpec, check_stop: Callable[[], None]) -> None:
        """Reads the rows.

        Args:
            task: The run's files.
            spec: With its defaults.
            check_stop: Called now and then while rows are read; may raise to end it.

        Raises:
            InvalidModel: The tokenizer has more words than the base knows.
            RenderingError: The base has no tokenizer that can be used.
            TrainingFault: INVALID_DATA, NOTHING_TO_LEARN when no row is left, or DATA_LEAK.
        """
        self._spec = spec
        self._folder = folder = task.base[0].folder
        self._tokenizer_files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        self._vocab_size = read_config(folder).get("vocab_size")
        self._cache = task.tokens
        share = spec.data.train_fraction or 1.0
        learned = replace(task.train_rows, share=share, seed=spec.seed or 0) if share < 1 else task.train_rows
        self.train = self._read("training", task.train, learned, check_stop)
        validation = task.validation
        self.validation = self._read("validation", validation, task.validation_rows, check_stop) if validation else None
        if spec.data.fail_on_leak and self.validation is not None:
            _require_apart(self.train, self.validation)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, to learn from or to measure on; of a pair those of both texts."""
        return max(length for corpus in (self.train, self.validation) if corpus for length in corpus.lengths)

    @functools.cached_property
    def _tokenizer(self) -> "Tokenizer":
        tokenizer = load_tokenizer(self._folder)  # a tenth of a second that rows from the cache do without
        if self._vocab_size is not None:
            check_vocabulary(tokenizer, self._vocab_size)
        return tokenizer

    @functools.cached_property
    def _format(self) -> ChatFormat:
        return ChatFormat.load(self._folder, self._tokenizer)

    @functools.cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a completion: those of the base, and the one that most rows to learn from end with."""
        ends = stop_ids(self._folder, self._tokenizer)
        return ends if self.train.end_token is None else ends | {self.train.end_token}

    def _read(self, name: str, paths: Sequence[Path], choice: RowChoice, check_stop: Callable[[], None]) -> Corpus:
        data = self._spec.data
        overlong = data.overlong or OverlongPolicy.DROP

        def read() -> Corpus:
            encode_rows = partial(
                encode_all,
                tokenizer=self._tokenizer,
                chat_format=self._format,
                max_tokens=data.max_tokens,
                overlong=overlong,
            )
            return read_corpus(
                paths,
                encode_rows,
                shapes=shapes_of(self._spec.task),
                piece_tokens=data.max_tokens if overlong is OverlongPolicy.SPLIT else None,
                choice=choice,
                check_stop=check_stop,
            )

        corpus = self._kept(paths, choice, read)
        if not corpus.examples:
            share = (
                f" Of all rows the share {choice.share:g} is read (data.train_fraction)." if choice.share < 1 else ""
            )
            raise TrainingFault(
                Reason.NOTHING_TO_LEARN,
                f"No {name} row has a token to learn; {corpus.dropped} rows were left out because they are longer than "
                f"data.max_tokens = {data.max_tokens}.{share}",
                "Give rows with completions, or raise data.max_tokens or data.train_fraction"
                f"{', or set data.overlong to TRUNCATE' * (overlong is OverlongPolicy.DROP)}.",
                metadata={"dropped": str(corpus.dropped), "max_tokens": str(data.max_tokens)},
            )
        return corpus

    def _kept(self, paths: Sequence[Path], choice: RowChoice, read: Callable[[], Corpus]) -> Corpus:
        """Returns the corpus as the token cache has it, or reads it and keeps it there."""
        if self._cache is None:
            return read()
        key = key_of(
            {
                "task": type(self._spec.task).__name__,
                "data": [self._spec.data.max_tokens, self._spec.data.overlong],
                "names": [str(path.relative_to(choice.folder) if choice.folder else path.name) for path in paths],
                "split": asdict(choice.split) if choice.split else None,
                "side": choice.side.value,
                **({"share": choice.share, "seed": choice.seed} if choice.share < 1 else {}),
                "tokenizer": [path.name for path in self._tokenizer_files],
                "vocab_size": self._vocab_size,
            },
            [*paths, *self._tokenizer_files],
        )
        if entry := self._cache.load(key):
            return Corpus.from_entry(entry)
        corpus = read()
        self._cache.save(key, corpus.to_entry())
        return corpus

    def prompts(self, max_positions: int) -> tuple[tuple[str, list[int]], ...]:
        """Returns the spec's prompts with their tokens, as user turns where the rows are conversations.

        Args:
            max_positions: Tokens that the base takes.

        Raises:
            TrainingFault: INVALID_FIELD, when a prompt leaves no room for its completion.
        """
        evaluation = self._spec.evaluation
        prompts = []
        for number, prompt in enumerate(evaluation.prompts):
            turns = [Turn(role="user", content=prompt)]
            ids = encode_prompt(turns if self.train.is_chat else prompt, self._tokenizer, self._format)
            room = max_positions - evaluation.max_new_tokens
            if not 1 <= len(ids) <= room:
                field = f"evaluation.prompts[{number}]"
                raise TrainingFault(
                    Reason.INVALID_FIELD,
                    f"{field} has {len(ids)} tokens, and the base model has room for 1 to {max(room, 0)} before "
                    f"{evaluation.max_new_tokens} new ones.",
                    "Shorten the prompt or lower evaluation.max_new_tokens.",
                    metadata={"field": field, "value": str(len(ids)), "limit": str(room)},
                )
            prompts.append((prompt, ids))
        return tuple(prompts)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of a completion."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _require_apart(train: Corpus, validation: Corpus) -> None:
    """Refuses rows for validation that are learned from too; the id of a row is that of its content.

    Raises:
        TrainingFault: DATA_LEAK.
    """
    both = np.intersect1d(train.examples.ids, validation.examples.ids)
    if len(both):
        raise TrainingFault(
            Reason.DATA_LEAK,
            f"{len(both)} rows for validation are learned from too, the first with the id {both[0].decode()}.",
            "Take them out of one of the two (`tuneforge datasets lint` lists them), or leave out data.fail_on_leak.",
            metadata={"rows": str(len(both))},
        )
