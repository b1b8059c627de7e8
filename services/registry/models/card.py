"""The card of a version: Markdown, written anew from the facts each time somebody asks for it.

Text that people gave stands in places of its own (description, `intended_use`, `notes`); in tables it is escaped, so
that no value can add a row or a heading.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.registry.models.profiles import merge_info
from tuneforge.specs.profile_documents import training_config
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import events_pb2, models_pb2, profiles_pb2, validations_pb2

INTENDED_USE = "intended_use"
"""Key of the metadata that says what a model is for."""
NOTES = "notes"
"""Key of the metadata with people's own notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card is written from."""

    version: models_pb2.ModelVersion
    model: models_pb2.Model
    profile: profiles_pb2.ModelProfile
    ancestors: Sequence[models_pb2.ModelVersion]
    """What it was made from, the nearest first; ends where a base is not stored here any more."""
    report: validations_pb2.ValidationReport | None
    """The newest one."""
    aliases: Sequence[str]
    """Ids of the aliases that point to it."""


def card_of(facts: CardFacts) -> str:
    """Writes the card."""
    version = facts.version
    model_id, number = facts.model.name.rpartition("/")[2], version.name.rpartition("/")[2]
    parts = [f"# {model_id}/{number}", _summary(facts), "## Facts", _table(_fact_rows(facts))]
    use = version.metadata.get(INTENDED_USE) or facts.model.metadata.get(INTENDED_USE)
    parts += ["## Intended use", use.strip() if use else "Nobody has said yet what it is for."]
    if version.lineage.job:
        parts += ["## Training", _table(_training_rows(version))]
    if version.metrics:
        rows = [(name, f"{version.metrics[name]:.6g}") for name in sorted(version.metrics)]
        parts += ["## Figures", _table(rows)]
    if facts.report is not None:
        parts += ["## Validation", "```\n" + facts.report.text.replace("```", "'''").rstrip() + "\n```"]
    parts += ["## Lineage", _lineage(facts)]
    if version.lineage.environment:
        environment = version.lineage.environment
        parts += ["## Environment", _table([(name, environment[name]) for name in sorted(environment)])]
    parts += ["## Memory", _table(_memory_rows(facts.profile))]
    parts += ["## Files", _table([(file.path, f"`{file.sha256}`") for file in version.manifest.files[:200]])]
    parts += ["## How to load it", _loading(version)]
    notes = version.metadata.get(NOTES) or facts.model.metadata.get(NOTES)
    if notes:
        parts += ["## Notes", notes.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(facts: CardFacts) -> str:
    return (facts.version.description or facts.model.description).strip()


def _fact_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    version, model = facts.version, facts.model
    kind = "adapter" if version.kind == events_pb2.ARTIFACT_KIND_ADAPTER else "model"
    yield "Name", f"`{version.name}`"
    yield "Kind", kind
    yield "Task", version.task or "not known"
    yield "Framework", version.framework
    yield "Architecture", version.architecture.class_name
    if (merged := merge_info(version)) is not None:
        yield "Merged", _merged(merged)
    yield "Weights", f"{version.architecture.parameters:,}" + (" (of its base)" if kind == "adapter" else "")
    if version.HasField("initialization"):
        yield "Weights come from", f"the configuration alone, drawn with seed {version.initialization.seed}"
    yield "License", version.license or model.license or "not stated"
    if domain := version.domain or model.domain:
        yield "Domain", domain
    if tags := sorted({*version.tags, *model.tags}):
        yield "Tags", ", ".join(tags)
    if facts.aliases:
        yield "Aliases", ", ".join(facts.aliases)
    yield "Digest", f"`{version.manifest.digest}`"
    yield "Made", f"{version.create_time.ToDatetime():%Y-%m-%d %H:%M} UTC by {version.creator}"


def _merged(found: Mapping[str, Any]) -> str:
    """Returns what a whole model was made of, and how far it is from that."""
    adapter = f"a {found['method']} adapter" if "method" in found else "an adapter"
    base = f" beside a base kept in {found['base_quantization'].upper()}" if "base_quantization" in found else ""
    agreement = found["divergence"].get("top1_agreement")
    same = "" if agreement is None else f"; same likeliest token as it at {agreement:.3%} of positions"
    return f"of {adapter} trained{base}, weights in format {found['format']}{same}"


def _training_rows(version: models_pb2.ModelVersion) -> Iterator[tuple[str, str]]:
    lineage = version.lineage
    yield "Job", f"`{lineage.job}`, attempt {lineage.attempt}"
    references = (("Base", lineage.base), ("Data", lineage.dataset), ("Validation data", lineage.validation))
    for name, reference in references:
        if reference.version:
            yield name, f"`{reference.version}` ({reference.digest[:12]})"
    if not lineage.HasField("spec"):
        return
    yield "Method", lineage.spec.WhichOneof("method") or "not known"
    for name, value in training_config(spec_from_proto(lineage.spec)).items():
        yield name.replace("_", " "), f"{value}"
    lora = spec_from_proto(lineage.spec).lora
    if lora is not None:
        yield "LoRA", f"rank {lora.rank}, alpha {lora.alpha:g}, targets {', '.join(lora.target_modules) or 'all'}"


def _memory_rows(profile: profiles_pb2.ModelProfile) -> Iterator[tuple[str, str]]:
    yield "By rule", f"{profile.memory_gb:g} GB ({profile.formula})"
    yield "Recommended partition", f"{profile.recommended_partition_gb:g} GB"
    yield "By shapes, serving", f"{profile.serving.total_bytes / 1e9:.2f} GB in {profile.precision}"
    if profile.training_bytes:
        yield "By shapes, training", f"{profile.training_bytes / 1e9:.2f} GB"


def _lineage(facts: CardFacts) -> str:
    lines = [f"- `{facts.version.name}` (this one)"]
    for depth, ancestor in enumerate(facts.ancestors, start=1):
        origin = f"by `{ancestor.lineage.job}`" if ancestor.lineage.job else "imported"
        lines.append(f"{'  ' * depth}- from `{ancestor.name}` ({ancestor.manifest.digest[:12]}), {origin}")
    last = facts.ancestors[-1] if facts.ancestors else facts.version
    if base := last.lineage.base.version:
        lines.append(f"{'  ' * (len(facts.ancestors) + 1)}- from `{base}`, which is not shown here")
    return "\n".join(lines)


def _loading(version: models_pb2.ModelVersion) -> str:
    model, number = version.name.split("/")[3], version.name.rpartition("/")[2]
    lines = [
        "```",
        f"tuneforge models download {model}/{number} FOLDER     # every file verified by its digest",
        f"tuneforge deployments create ID --model {model}/{number}",
        "```",
    ]
    if version.kind == events_pb2.ARTIFACT_KIND_ADAPTER:
        lines.append(f"\nIt is of use on its base only: `{version.lineage.base.version}`, digest")
        lines.append(f"`{version.lineage.base.digest}`.")
    return "\n".join(lines)


def _table(rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
