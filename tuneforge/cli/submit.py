"""`tuneforge jobs submit`: a spec from flags, from a file, or from a file with flags on top."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.budgets import budget_of, budget_options
from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.job_options import job_options, options_of
from tuneforge.cli.output import clock, print_fields, print_json, short, size
from tuneforge.cli.scheduling import scheduling_of, scheduling_options
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.job_values import Job

# Flag -> where its value stands in the spec.
_PLACES = {
    "base": ("base", "model"),
    "base_job": ("base", "output_of_job"),
    "data": ("data", "train", "dataset"),
    "validation": ("data", "validation", "dataset"),
    "max_tokens": ("data", "max_tokens"),
    "overlong": ("data", "overlong"),
    "fail_on_leak": ("data", "fail_on_leak"),
    "epochs": ("optimization", "epochs"),
    "max_steps": ("optimization", "max_steps"),
    "lr": ("optimization", "learning_rate"),
    "schedule": ("optimization", "schedule"),
    "warmup_ratio": ("optimization", "warmup_ratio"),
    "weight_decay": ("optimization", "weight_decay"),
    "max_grad_norm": ("optimization", "max_grad_norm"),
    "optimizer": ("optimization", "optimizer"),
    "decay_ratio": ("optimization", "decay_ratio"),
    "decay_every": ("optimization", "decay_every_steps"),
    "decay_factor": ("optimization", "decay_factor"),
    "recompute": ("optimization", "recompute"),
    "rows_per_step": ("optimization", "rows_per_step"),
    "rows_per_micro_batch": ("optimization", "rows_per_micro_batch"),
    "compute": ("precision", "compute"),
    "deterministic": ("precision", "deterministic"),
    "checkpoint_every": ("checkpointing", "every_steps"),
    "keep_checkpoints": ("checkpointing", "keep_last"),
    "durable_every": ("checkpointing", "durable_every_steps"),
    "keep_best": ("checkpointing", "keep_best"),
    "eval_every": ("evaluation", "every_steps"),
    "patience": ("evaluation", "patience"),
    "use_best": ("evaluation", "use_best"),
    "sample": ("evaluation", "prompts"),
    "nodes": ("resources", "nodes"),
    "devices": ("resources", "devices_per_node"),
    "cpus": ("resources", "cpu"),
    "memory": ("resources", "memory"),
    "output": ("output", "model"),
    "merge_format": ("output", "merge", "format"),
    "min_agreement": ("output", "merge", "min_agreement"),
    "seed": ("seed",),
}
_ADAPTER = {
    "rank": "rank",
    "alpha": "alpha",
    "dropout": "dropout",
    "target": "target_modules",
    "rslora": "use_rslora",
    "dora": "use_dora",
}
# Of these only one may stand: a flag takes the place of what the file says.
_ONE_OF = (
    ("base", ("model", "output_of_job", "local_path")),
    ("optimization", ("epochs", "max_steps")),
    ("resources", ("cpu", "cpu_millis")),
    ("resources", ("memory", "memory_bytes")),
)
_METHODS = ("lora", "qlora", "full", "merge")
_WITHOUT_ADAPTERS = ("full", "merge")
_TASKS = {
    "sft": "supervised",
    "pretrain": "continued_pretraining",
    "dpo": "preference",
    "reward": "reward_model",
}
"""What a task is called on the command line -> in the spec."""
_PREFERENCE = {"beta": "beta", "label_smoothing": "label_smoothing", "preference_loss": "loss"}
_EXCLUSIVE = (("base", "base_job"), ("epochs", "max_steps"))
# In a file 0 stands for the default; who types it means a 0, which there is not.
_NO_ZERO = {
    "rank": "1 or more",
    "alpha": "a number > 0",
    "lr": "a number > 0",
    "beta": "a number > 0",
    "max_tokens": "8 to 131072",
    "rows_per_step": "1 to 65536",
    "decay_every": "1 or more",
    "rows_per_micro_batch": "1 or more",
    "keep_checkpoints": "1 or more",
}


@click.command(cls=ConnectedCommand)
@click.option("--spec", type=click.Path(path_type=Path), metavar="FILE", help="Spec as JSON; flags go on top of it.")
@click.option("--base", metavar="MODEL", help="Version (`id/3`) or alias (`id@production`) to start from.")
@click.option("--base-job", metavar="JOB", help="Start from the version that this job publishes.")
@click.option("--data", metavar="DATASET", help="Rows to learn from: `id` (newest version) or `id/3`.")
@click.option("--validation", metavar="DATASET", help="Rows for the validation loss.")
@click.option(
    "--task",
    type=click.Choice([*_TASKS, *_TASKS.values()]),
    help="What is learned: answers, texts, which of two answers is better, or to judge.  [default: sft]",
)
@click.option("--beta", type=float, help="dpo: how near to the base it stays.  [default: 0.1]")
@click.option("--label-smoothing", type=float, help="dpo: share of pairs in the wrong order.  [default: 0]")
@click.option("--preference-loss", metavar="NAME", help="dpo: sigmoid or ipo.  [default: sigmoid]")
@click.option("--method", type=click.Choice(_METHODS), help="Which weights move.  [default: lora]")
@click.option("--rank", type=int, help="Width of the adapters.  [default: 16]")
@click.option("--alpha", type=float, help="Scale of the adapters.  [default: twice the rank]")
@click.option("--dropout", type=float, help="Of the adapters' inputs.  [default: 0]")
@click.option("--target", multiple=True, metavar="LAYER", help="Layer with adapters, e.g. q_proj; may be repeated.")
@click.option("--rslora", is_flag=True, default=None, help="Scale the adapters by alpha / sqrt(rank).")
@click.option("--dora", is_flag=True, default=None, help="Learn a magnitude for each output beside the adapters.")
@click.option("--quantization", metavar="FORM", help="qlora: nf4, nf4_single or int8.  [default: nf4]")
@click.option("--freeze-layers", type=int, help="full: lowest layers that stay as they are.  [default: 0]")
@click.option("--epochs", type=float, help="Passes over the rows.  [default: 3; other tasks than sft 1]")
@click.option("--max-steps", type=int, help="Optimiser steps, instead of epochs.")
@click.option("--lr", type=float, help="Peak learning rate.  [default: by task and method; sft 2e-4, full 2e-5]")
@click.option("--schedule", metavar="NAME", help="cosine, linear, constant, wsd or step.  [default: cosine]")
@click.option("--warmup-ratio", type=float, help="Share of the steps with a rising rate.  [default: 0.05]")
@click.option("--decay-ratio", type=float, help="wsd: share of the steps with a falling rate.  [default: 0.2]")
@click.option("--decay-every", type=int, help="step: steps between two falls of the rate.  [default: 500]")
@click.option("--decay-factor", type=float, help="step: factor of each fall.  [default: 0.9]")
@click.option("--weight-decay", type=float, help="Decoupled.  [default: 0]")
@click.option("--max-grad-norm", type=float, help="Clips gradients; 0 does not.  [default: 1]")
@click.option(
    "--optimizer",
    metavar="NAME",
    help="adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, sgd or adafactor.  [default: adamw]",
)
@click.option("--rows-per-step", type=int, help="Rows behind one optimiser step.  [default: 8]")
@click.option("--rows-per-micro-batch", type=int, help="Rows computed at once.  [default: chosen by the trainer]")
@click.option("--max-tokens", type=int, help="Longest row.  [default: 1024, or the model's limit]")
@click.option(
    "--overlong",
    metavar="POLICY",
    help="drop, truncate, refuse or split a longer row.  [default: drop; pretrain: split]",
)
@click.option(
    "--fail-on-leak", is_flag=True, default=None, help="Refuse the run when a validation row is learned from too."
)
@click.option(
    "--recompute",
    metavar="POLICY",
    help="Activations computed again in the backward pass: auto, none, selective or full.  [default: auto]",
)
@click.option("--compute", metavar="TYPE", help="auto, bf16, fp16 or fp32.  [default: auto]")
@click.option("--deterministic", is_flag=True, default=None, help="Only kernels that give the same bits each time.")
@click.option("--checkpoint-every", type=int, help="Steps between checkpoints.  [default: 50]")
@click.option("--keep-checkpoints", type=int, help="How many stay.  [default: 2]")
@click.option("--durable-every", type=int, help="Steps between copies to the blob store, 0 = none.  [default: each]")
@click.option("--keep-best", is_flag=True, default=None, help="Keep the checkpoint of the lowest validation loss too.")
@click.option("--eval-every", type=int, help="Steps between evaluations.  [default: only at the end]")
@click.option("--patience", type=int, help="Evaluations without a new lowest loss that end it.  [default: none]")
@click.option("--use-best", is_flag=True, default=None, help="Keep the weights of the lowest validation loss.")
@click.option("--sample", multiple=True, metavar="PROMPT", help="Completed at each evaluation; may be repeated.")
@click.option("--nodes", type=int, help="Nodes that train together, taken all at once.  [default: 1]")
@click.option("--devices", type=int, help="Accelerators, 0 = CPU.  [default: 1 where there is one]")
@click.option("--cpus", metavar="AMOUNT", help="Cores on each node: 2, 0.5 or 2000m.  [default: a share of the node]")
@click.option(
    "--memory", metavar="AMOUNT", help="Host memory on each node: 4Gi, 2048Mi or 2G.  [default: as predicted]"
)
@click.option(
    "--node-label", multiple=True, metavar="KEY=VALUE", help="Only on nodes with this label; may be repeated."
)
@scheduling_options
@click.option("--output", metavar="MODEL", help="Model that gets the version.  [default: named like the job]")
@click.option("--merge", is_flag=True, help="Make the result a whole model, if that agrees with its adapter.")
@click.option("--merge-format", metavar="FORMAT", help="Of its weights: stored, fp32, bf16 or fp16.  [default: stored]")
@click.option("--min-agreement", type=float, help="Least share of equal likeliest tokens.  [default: 0.995]")
@click.option("--seed", type=int, help="Of every random choice.  [default: 0]")
@click.option("--job-id", metavar="ID", help="Id of the job.  [default: chosen by the server]")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Label of the job; may be repeated.")
@click.option(
    "--from-checkpoint",
    metavar="JOB/STEP",
    help="Begin from this checkpoint; what is left out is as in its job.",
)
@budget_options
@job_options
@click.option("--validate-only", is_flag=True, help="Check everything, store nothing.")
@click.option("--watch", is_flag=True, help="Watch it to its end.")
@json_option
@click.pass_obj
def submit(connection: Connection, /, spec: Path | None, as_json: bool, **flags: Any) -> None:
    """Queue a job."""
    content = read_flags(spec, flags)
    asked: dict[str, Any] = {
        "job_id": flags["job_id"],
        "labels": _labels(flags["label"]),
        "from_checkpoint": flags["from_checkpoint"],
        "budget": budget_of(flags),
        "scheduling": scheduling_of(flags),
    }
    options = options_of(flags)
    with connection.client() as client:
        if flags["validate_only"]:
            job = client.jobs.validate(content, **asked, options=options)
            _warn(job)
            _show_check(job, as_json=as_json)
            return
        message = "stopped; the job may have been queued: tuneforge jobs list"
        with stoppable(message):
            handle = client.jobs.create(content, **asked, options=options)
        _warn(handle.job)
        if not flags["watch"]:
            if as_json:
                print_json(handle.job)
            else:
                click.echo(f"{handle.id}: {handle.state}; watch it: tuneforge jobs watch {handle.id}")
            return
        from tuneforge.cli.watch import watch_job

        watch_job(client.jobs, handle.name, as_json=as_json)


def read_flags(spec: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the JSON form of a spec from a file and the flags on top of it.

    Raises:
        UsageError: Flags contradict each other.
    """
    _refuse(flags)
    return with_flags(_read(spec) if spec else {}, flags)


def _refuse(flags: dict[str, Any]) -> None:
    """Raises for flags that exclude each other, and for a 0 that would silently be the default."""
    faults = [
        f"{_flag(one)} and {_flag(other)} exclude each other: give one of them."
        for one, other in _EXCLUSIVE
        if flags[one] is not None and flags[other] is not None
    ]
    faults += [
        f"{_flag(name)} is 0: use {allowed}, or leave it out for the default."
        for name, allowed in _NO_ZERO.items()
        if flags[name] == 0
    ]
    if faults:
        raise click.UsageError("\n".join(faults))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read(path: Path) -> dict[str, Any]:
    from tuneforge.json_files import read_json_file

    content: dict[str, Any] = json.loads(json.dumps(read_json_file(path)))
    return content


def with_flags(content: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec's JSON form with the given flags in their places."""
    for flag, place in _PLACES.items():
        if flags[flag] not in (None, ()):
            _put(content, place, flags[flag])
    if flags.get("node_label"):
        _put(content, ("resources", "node_labels"), _labels(flags["node_label"], "--node-label"))
    if flags["merge"]:
        _put(content, ("output", "merge"), content.get("output", {}).get("merge", {}))
    return content if _takes_over(content, flags) else _with_method(content, flags)


def _takes_over(content: dict[str, Any], flags: dict[str, Any]) -> bool:
    """Tells whether method and task are those of the job that the checkpoint to begin from is of."""
    asked = [flags[name] for name in ("method", "task", "freeze_layers", *_ADAPTER, *_PREFERENCE)]
    is_asked = any(value not in (None, ()) for value in asked)
    is_said = any(name in content for name in (*_METHODS, *_TASKS.values()))
    return bool(flags.get("from_checkpoint")) and not is_asked and not is_said


def _with_method(content: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec's JSON form with its method and its task."""
    chosen = flags["method"] or next((name for name in _METHODS if name in content), "lora")
    adapter = {key: flags[flag] for flag, key in _ADAPTER.items() if flags[flag] not in (None, ())}
    if chosen in _WITHOUT_ADAPTERS and adapter:
        flag = next(flag for flag, key in _ADAPTER.items() if key in adapter)
        raise click.UsageError(f"{_flag(flag)} is for adapters, not {chosen}.")
    if chosen != "full" and flags["freeze_layers"] is not None:
        raise click.UsageError(f"--freeze-layers is for full, not {chosen}: beside adapters nothing else moves.")
    for name in _METHODS:
        if name != chosen:
            content.pop(name, None)
    content.setdefault(chosen, {})
    _put_quantization(content, chosen, flags["quantization"])
    if flags["freeze_layers"] is not None:
        _put(content, ("full", "freeze_layers"), flags["freeze_layers"])
    for key, value in adapter.items():
        _put(content, ("qlora", "lora", key) if chosen == "qlora" else (chosen, key), value)
    _put_task(content, flags)
    return content


def _put_quantization(content: dict[str, Any], method: str, form: str | None) -> None:
    if form is not None and method != "qlora":
        raise click.UsageError(f"--quantization is for --method qlora, not {method}.")
    if form is not None:
        _put(content, ("qlora", "quantization"), form)


def _put_task(content: dict[str, Any], flags: dict[str, Any]) -> None:
    """Sets the task: that of the flag, else that of the file, else supervised fine-tuning."""
    asked = flags["task"]
    named = _TASKS.get(asked, asked)
    chosen = named or next((name for name in _TASKS.values() if name in content), "supervised")
    for name in _TASKS.values():
        if name != chosen:
            content.pop(name, None)
    content.setdefault(chosen, {})
    for flag, key in _PREFERENCE.items():
        if flags[flag] is None:
            continue
        if chosen != "preference":
            raise click.UsageError(f"{_flag(flag)} is for --task dpo, not {chosen}.")
        _put(content, ("preference", key), flags[flag])


def _put(content: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Sets one value; drops what stands in its stead."""
    *parents, last = place
    for parent in parents:
        inner = content.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise click.UsageError(f"the spec's `{parent}` is no object, so that a flag cannot set `{last}` in it.")
        content = inner
    for parent, names in _ONE_OF:
        if parents == [parent] and last in names:
            for name in names:
                content.pop(name, None)
    content[last] = list(value) if isinstance(value, tuple) else value


def _labels(given: tuple[str, ...], hint: str = "--label") -> dict[str, str]:
    labels: dict[str, str] = {}
    for label in given:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{label!r} is not of the form KEY=VALUE.", param_hint=hint)
        if labels.get(key, value) != value:
            raise click.BadParameter(f"{key!r} has two values, {labels[key]!r} and {value!r}.", param_hint=hint)
        labels[key] = value
    return labels


def _warn(job: "Job") -> None:
    for warning in job.warnings:
        click.echo(f"warning: {warning}", err=True)


def _show_check(job: Any, *, as_json: bool) -> None:
    """Prints what a job would be."""
    if as_json:
        print_json(job)
        return
    memory = job.memory_estimate
    print_fields(
        [
            ("valid", "nothing was stored"),
            ("base", short(job.base.version) if job.base else f"what {job.spec.base.output_of_job} publishes"),
            ("data", short(job.train.version) if job.train else None),
            ("validation", short(job.validation.version) if job.validation else None),
            ("steps", job.total_steps or None),
            ("lost after", clock(job.spec.resources.lost_after_s or 0)),
            ("peak memory", f"about {size(memory.total_bytes)}" if memory else None),
        ]
    )
