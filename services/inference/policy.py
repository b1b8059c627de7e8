"""Who may call each method of the inference service: one row an RPC, and what has no row is not served."""

from collections.abc import Mapping

from services.grpckit.auth import Policy

POLICIES: Mapping[str, Policy] = {
    "CreateDeployment": Policy("deployments.write", "parent"),
    "GetDeployment": Policy("deployments.read", "name", is_quiet=True),
    "ListDeployments": Policy("deployments.read", "parent"),
    "DeleteDeployment": Policy("deployments.write", "name"),
    # A prompt changes nothing: who may read a deployment may ask it.
    "Generate": Policy("deployments.read", "name"),
}
