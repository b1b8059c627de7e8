"""Messages of the registry and its values: what goes in comes out."""

from hypothesis import given
from hypothesis import strategies as st

from services.registry import wire
from services.registry.aliases import wire as alias_wire
from services.registry.aliases.resources import UNGATED, Alias, AliasChange, MoveKind
from services.registry.collections import Collection
from services.registry.datasets import wire as dataset_wire
from services.registry.datasets.resources import Dataset, DatasetContent, DatasetVersion, RowShape
from services.registry.models import wire as model_wire
from services.registry.models.examination import Publication, Reference
from services.registry.models.facts import Facts
from services.registry.models.listing import ListedModel
from services.registry.models.resources import ArtifactKind, ModelVersion
from services.registry.models.shapes import Architecture, Tensor
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import AliasName, DatasetName, ModelName
from tuneforge.v1 import datasets_pb2, events_pb2, models_pb2, types_pb2

MANIFEST = Manifest.of([ManifestFile("a", "0" * 64, 3), ManifestFile("b/c", "f" * 64, 4)])
ARCHITECTURE = Architecture(
    class_name="LlamaForCausalLM",
    config_json='{"a": 1}',
    tensors=(Tensor(name="x", shape=(2, 3), dtype="F32"), Tensor(name="y", shape=(), dtype="BF16")),
)


@given(st.integers(0, 253402300799_999999))
def test_times_keep_their_microseconds(time_us: int) -> None:
    """Every microsecond up to the year 9999 survives."""
    assert wire.timestamp(time_us).ToMicroseconds() == time_us


def test_a_manifest_survives() -> None:
    """Files and digest come back; a request may leave the digest out."""
    message = wire.manifest_to_proto(MANIFEST)
    assert wire.manifest_of_request(message) == MANIFEST
    message.digest = ""
    assert wire.manifest_of_request(message) == MANIFEST


def test_every_shape_and_kind_has_its_number() -> None:
    """The words of the code are those of the contract."""
    for shape in RowShape:
        content = DatasetContent(manifest=MANIFEST, shape=shape, rows=1)
        version = DatasetVersion(name=DatasetName("p", "d").version(1), content=content, create_time_us=1, creator="c")
        number = dataset_wire.dataset_version_to_proto(version).shape
        assert datasets_pb2.RowShape.Name(number) == f"ROW_SHAPE_{shape}"
    assert len(RowShape) == len(datasets_pb2.RowShape.items()) - 1
    assert len(ArtifactKind) == len(events_pb2.ArtifactKind.items()) - 1


def test_collections_name_their_newest_version() -> None:
    """Without versions the field is empty."""
    model = Collection(name=ModelName("p", "m"), description="d", create_time_us=2_000_000, creator="c", latest=0)
    listed = ListedModel(model=model, own=Facts(), newest=Facts())
    assert model_wire.model_to_proto(listed).latest_version == ""
    dataset = Dataset(name=DatasetName("p", "d"), description="d", create_time_us=1, creator="c", latest=7)
    assert dataset_wire.dataset_to_proto(dataset).latest_version == "projects/p/datasets/d/versions/7"


def test_a_stored_version_is_one_message_in_two_parts() -> None:
    """Record and tensors together give the whole version; the record alone gives it without tensors."""
    content = model_wire.imported_content(MANIFEST, ARCHITECTURE)
    version = ModelVersion(name=ModelName("p", "m").version(3), content=content, create_time_us=5, creator="c")
    message = model_wire.model_version_to_proto(version)
    assert message.name == "projects/p/models/m/versions/3"
    assert [(tensor.name, tuple(tensor.shape)) for tensor in message.architecture.tensors] == [("x", (2, 3)), ("y", ())]
    assert message.architecture.parameters == 7
    record = models_pb2.ModelVersion.FromString(content.record)
    assert not record.architecture.tensors
    assert record.architecture.class_name == "LlamaForCausalLM"


def test_an_adapter_takes_the_architecture_of_its_base() -> None:
    """What is stored of an adapter repeats its base's architecture, and its own lineage and metrics."""
    base = ModelVersion(
        name=ModelName("p", "base").version(1),
        content=model_wire.imported_content(MANIFEST, ARCHITECTURE),
        create_time_us=1,
        creator="c",
    )
    lineage = models_pb2.Lineage(
        base=types_pb2.VersionRef(version=str(base.name), digest="d"), job="projects/p/jobs/j", attempt=3
    )
    request = models_pb2.PublishVersionRequest(
        parent="projects/p/models/m",
        manifest=wire.manifest_to_proto(MANIFEST),
        kind=events_pb2.ARTIFACT_KIND_ADAPTER,
        lineage=lineage,
        metrics={"loss": 0.5},
    )
    publication = model_wire.publication_of_request(request)
    assert publication == Publication(
        model=ModelName("p", "m"),
        manifest=MANIFEST,
        kind=ArtifactKind.ADAPTER,
        job="projects/p/jobs/j",
        base=Reference(version=str(base.name), digest="d"),
    )
    content = model_wire.published_content(publication, request, None, base)
    version = ModelVersion(name=ModelName("p", "m").version(1), content=content, create_time_us=1, creator="c")
    message = model_wire.model_version_to_proto(version)
    assert message.architecture == model_wire.model_version_to_proto(base).architecture
    assert (message.lineage, dict(message.metrics)) == (lineage, {"loss": 0.5})
    assert content.origin.base_version == str(base.name)


def test_aliases_and_moves() -> None:
    """The first move comes from nowhere; etags differ from move to move."""
    name = AliasName("p", "m", "production")
    first, second = (Alias(name=name, version=4, sequence=number, update_time_us=9) for number in (1, 2))
    assert alias_wire.alias_to_proto(first).version == "projects/p/models/m/versions/4"
    assert alias_wire.alias_to_proto(first).etag != alias_wire.alias_to_proto(second).etag
    change = AliasChange(
        name=name,
        sequence=1,
        position=1,
        kind=MoveKind.SET,
        from_version=0,
        to_version=4,
        restored_sequence=0,
        actor="a",
        reason="r",
        time_us=9,
        verdict=UNGATED,
    )
    message = alias_wire.alias_change_to_proto(change)
    assert (message.from_version, message.to_version) == ("", "projects/p/models/m/versions/4")
