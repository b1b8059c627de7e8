"""`RegistryService`: the methods of all topics; each reads its request, calls, and answers."""

from services.registry.aliases.calls import AliasCalls
from services.registry.blobs.calls import BlobCalls
from services.registry.blobs.hold_calls import BlobHoldCalls
from services.registry.datasets.calls import DatasetCalls
from services.registry.lineage.calls import LineageCalls
from services.registry.lint.calls import LintCalls
from services.registry.models.calls import ModelCalls
from services.registry.models.description_calls import DescriptionCalls
from services.registry.models.fact_calls import FactCalls
from services.registry.promotions.calls import PromotionCalls
from services.registry.recipes.calls import RecipeCalls
from services.registry.retention.calls import RetentionCalls
from services.registry.retention.hold_calls import HoldCalls
from services.registry.signing.calls import SigningCalls
from services.registry.sources.calls import SourceCalls
from tuneforge.v1 import registry_pb2_grpc


class RegistryServicer(
    SourceCalls,
    DatasetCalls,
    ModelCalls,
    FactCalls,
    DescriptionCalls,
    AliasCalls,
    BlobCalls,
    BlobHoldCalls,
    RecipeCalls,
    LineageCalls,
    LintCalls,
    PromotionCalls,
    SigningCalls,
    RetentionCalls,
    HoldCalls,
    registry_pb2_grpc.RegistryServiceServicer,
):
    """The registry's methods; errors are raised as `ServiceError` and `InvalidName`, see the contract for which."""
