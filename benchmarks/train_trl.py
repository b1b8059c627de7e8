"""Contestant: TRL's SFTTrainer, or the plain Trainer of transformers, on the same rows in the same steps.

    python -m benchmarks.train_trl WORK.json default|packed|trainer

- `default`: SFTTrainer as it comes: bfloat16 by autocast, gradient checkpointing on, rows filled up to the longest.
- `packed`: best-fit packing of each step's rows into one line, gradient checkpointing off: its best setting here.
- `trainer`: transformers' Trainer with the model's own loss, no checkpointing; for full fine-tuning.

Runs in an environment of its own, see `trl_python`.
"""
# mypy: ignore-errors

from __future__ import annotations

import sys
import tempfile

from benchmarks.contestants import Round, Stopwatch, Work, rounds


def main(path: str, kind: str) -> None:
    """Prepares and makes rounds."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    work = Work.read(path)
    torch.set_num_threads(work.threads)
    tokenizer = AutoTokenizer.from_pretrained(work.weights)
    model = AutoModelForCausalLM.from_pretrained(work.weights, dtype=torch.float32, attn_implementation="sdpa")
    if work.adapter:
        model = PeftModel.from_pretrained(model, work.adapter, is_trainable=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    initial = [parameter.detach().clone() for parameter in weights]
    rows = _rows(work, kind)

    class Watched(TrainerCallback):
        """Times the steps and keeps what is logged."""

        def __init__(self) -> None:
            self.watch, self.spent, self.losses, self.norms = Stopwatch(), (0.0, 0.0), [], []
            self.first_cpu_s = 0.0

        def on_train_begin(self, *_args: object, **_kwargs: object) -> None:
            """Starts the watch."""
            self.watch.start()

        def on_log(self, _args: object, _state: object, _control: object, logs: dict, **_kwargs: object) -> None:
            """Keeps loss and norm of a step."""
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))
                self.norms.append(float(logs["grad_norm"]))
                self.spent = self.watch.read()
                self.first_cpu_s = self.first_cpu_s or self.spent[0]

    def make() -> Round:
        with torch.no_grad():
            for parameter, value in zip(weights, initial, strict=True):
                parameter.copy_(value)
        watched = Watched()
        with tempfile.TemporaryDirectory() as folder:
            trainer = _trainer(kind, work, model, tokenizer, rows, folder)
            trainer.add_callback(watched)
            trainer.train()
            is_checkpointing = trainer.args.gradient_checkpointing
        cpu, wall = watched.spent
        return Round(
            cpu_s=cpu,
            first_cpu_s=watched.first_cpu_s,
            wall_s=wall,
            losses=watched.losses,
            grad_norms=watched.norms,
            note=f"gradient checkpointing {'on' if is_checkpointing else 'off'}",
        )

    rounds(make)


def _rows(work: Work, kind: str):
    """Returns the rows as a data set: one line a row, or one line a step where they are packed."""
    from datasets import Dataset, concatenate_datasets
    from trl import pack_dataset

    steps = []
    for step in work.steps:
        labels = [
            [token if is_learned else -100 for token, is_learned in zip(*row.values(), strict=True)] for row in step
        ]
        rows = Dataset.from_dict({"input_ids": [row["input_ids"] for row in step], "labels": labels})
        if kind == "packed":
            room = sum(len(row["input_ids"]) for row in step)
            rows = pack_dataset(rows, seq_length=room, strategy="bfd")
            assert len(rows) == 1
        steps.append(rows)
    return concatenate_datasets(steps)


def _trainer(kind: str, work: Work, model, tokenizer, rows, folder: str):
    settings = {
        "output_dir": folder,
        "max_steps": len(work.steps),
        "per_device_train_batch_size": 1 if kind == "packed" else len(work.steps[0]),
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": work.compute == "bf16",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": work.seed,
    }
    if kind == "trainer":
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        return Trainer(model=model, args=TrainingArguments(**settings), train_dataset=rows, data_collator=collate)
    from trl import SFTConfig, SFTTrainer

    own = {"packing": True, "gradient_checkpointing": False} if kind == "packed" else {}
    args = SFTConfig(**settings, **own, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
    return SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)


if __name__ == "__main__":
    main(*sys.argv[1:])
