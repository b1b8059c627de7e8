"""Who may call each method of the registry: one row an RPC, and what has no row is not served."""

from collections.abc import Mapping

from services.grpckit.auth import Policy

# Reading every row of a data set, or the digests behind a large manifest, takes longer than other calls may.
_CHECK_DEADLINE_S = 600.0

# A comparison draws thousands of resamples.
_GATES_DEADLINE_S = 120.0

POLICIES: Mapping[str, Policy] = {
    "CreateDataset": Policy("datasets.write", "parent"),
    "GetDataset": Policy("datasets.read", "name"),
    "ListDatasets": Policy("datasets.read", "parent"),
    "CreateDatasetVersion": Policy("datasets.write", "parent", deadline_s=_CHECK_DEADLINE_S),
    "GetDatasetVersion": Policy("datasets.read", "name"),
    "ListDatasetRows": Policy("datasets.read", "parent"),
    "UpdateDataset": Policy("datasets.write", "dataset.name"),
    "ListDatasetVersions": Policy("datasets.read", "parent"),
    "LintDatasetVersion": Policy("datasets.read", "name"),
    "PreviewDatasetRow": Policy("datasets.read", "name", deadline_s=_CHECK_DEADLINE_S),
    "CreateModel": Policy("models.write", "parent"),
    "GetModel": Policy("models.read", "name"),
    "ListModels": Policy("models.read", "parent"),
    "CreateModelVersion": Policy("models.write", "parent", deadline_s=_CHECK_DEADLINE_S),
    "PublishVersion": Policy("models.internal", "parent", deadline_s=_CHECK_DEADLINE_S),
    "GetModelVersion": Policy("models.read", "name"),
    "ListModelVersions": Policy("models.read", "parent"),
    "UpdateModel": Policy("models.write", "model.name"),
    "UpdateModelVersion": Policy("models.write", "version.name"),
    "GetModelCard": Policy("models.read", "name"),
    "GetModelProfile": Policy("models.read", "name"),
    "CreateValidationReport": Policy("models.write", "parent"),
    "ListValidationReports": Policy("models.read", "parent"),
    "GetAlias": Policy("aliases.read", "name"),
    "ListAliases": Policy("aliases.read", "parent"),
    "SetAlias": Policy("aliases.write", "name", deadline_s=_GATES_DEADLINE_S),
    "RollbackAlias": Policy("aliases.write", "name", deadline_s=_GATES_DEADLINE_S),
    "DeleteAlias": Policy("aliases.write", "name"),
    "WatchAliases": Policy("aliases.read", "parent"),
    "SetGatePolicy": Policy("gates.admin", "policy.name"),
    "GetGatePolicy": Policy("gates.read", "name"),
    "ListGatePolicies": Policy("gates.read", "parent"),
    "DeleteGatePolicy": Policy("gates.admin", "name"),
    "ListGatePolicyChanges": Policy("gates.read", "parent"),
    "CheckGates": Policy("gates.read", "name", deadline_s=_GATES_DEADLINE_S),
    "ApproveMove": Policy("aliases.write", "name"),
    "RevokeApproval": Policy("aliases.write", "name"),
    "ListApprovals": Policy("aliases.read", "parent"),
    "RecordEvaluation": Policy("evaluations.write", "version"),
    "ListEvaluations": Policy("evaluations.read", "parent"),
    "PromoteVersion": Policy("promotions.write", "name"),
    "UnpromoteVersion": Policy("promotions.write", "name"),
    "GetPromotion": Policy("promotions.read", "name"),
    "ListPromotions": Policy("promotions.read", "parent"),
    "ListAliasChanges": Policy("aliases.read", "parent"),
    "GetBlobAccess": Policy("blobs.read", "name"),
    # A client stream: the servicer checks the project in its first message.
    "UploadBlob": Policy("blobs.write"),
    "DownloadBlob": Policy("blobs.read", "name"),
    "CheckBlob": Policy("blobs.read", "name", deadline_s=_CHECK_DEADLINE_S),
    "CompleteUpload": Policy("blobs.write", "name", deadline_s=_CHECK_DEADLINE_S),
    # Recipes are the operator's, for all projects.
    "ListRecipes": Policy("recipes.read"),
    "GetRecipe": Policy("recipes.read"),
    "ResolveRecipe": Policy("recipes.read"),
    "ImportDatasetVersion": Policy("datasets.write", "parent"),
    "ImportModelVersion": Policy("models.write", "parent"),
    "QueryLineage": Policy("lineage.read", "name"),
    "FindLineagePath": Policy("lineage.read", "name"),
    "ListAffectedAliases": Policy("lineage.read", "name"),
    "RevokeDataset": Policy("datasets.write", "name"),
    "UnrevokeDataset": Policy("datasets.admin", "name"),
    "ListRevocations": Policy("lineage.read", "parent"),
    # The public keys are the same for all projects.
    "GetSigningKey": Policy("signatures.read"),
    "ListSigningKeys": Policy("signatures.read"),
    "GetSignature": Policy("signatures.read", "name"),
    "VerifyVersion": Policy("signatures.read", "name"),
    "GetRetention": Policy("retention.read", "name"),
    "PinVersion": Policy("retention.write", "name"),
    "UnpinVersion": Policy("retention.write", "name"),
    "HoldVersions": Policy("retention.internal", "holder"),
    "ReleaseVersions": Policy("retention.write", "holder"),
    # A service looks after all that it holds, whatever project it is in.
    "ListHolds": Policy("retention.internal"),
    "SetExpiration": Policy("retention.write", "name"),
    "DeleteDatasetVersion": Policy("datasets.write", "name"),
    "DeleteDataset": Policy("datasets.write", "name"),
    "DeleteModelVersion": Policy("models.write", "name"),
    "DeleteModel": Policy("models.write", "name"),
    "GetRetentionPolicy": Policy("retention.read", "name"),
    "UpdateRetentionPolicy": Policy("retention.admin", "policy.name"),
    # Works on all projects at once, so it names none.
    "CollectGarbage": Policy("retention.admin", deadline_s=_CHECK_DEADLINE_S),
}
