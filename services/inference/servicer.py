"""The RPCs of the inference service: read the message, call, answer."""

import time
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa

from services.grpckit import context, pages
from services.grpckit.database import Database
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.grpckit.holding import Holding
from services.grpckit.request_memory import RequestScope, remember
from services.inference import store
from services.inference.deployments import Deployment, DeploymentState, Layer
from services.inference.peers import RegistryPeer
from services.inference.serving import Serving
from services.inference.wire import deployment_to, piece_to, request_from, served_to
from tuneforge.names import ID_FORM, DeploymentName, ProjectName, is_id, parse_model_reference
from tuneforge.v1 import inference_pb2, inference_pb2_grpc


class _NotAnsweredYet(Exception):
    """The request id is new."""


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """One method an RPC."""

    def __init__(self, database: Database, registry: RegistryPeer, serving: Serving, holding: Holding) -> None:
        """Takes the database, the registry, what serves the deployments and what holds their versions."""
        self._database = database
        self._registry = registry
        self._serving = serving
        self._holding = holding

    async def CreateDeployment(
        self, request: inference_pb2.CreateDeploymentRequest, _: Any
    ) -> inference_pb2.Deployment:
        """Makes a deployment and begins to load it."""
        name = _new_name(request)
        scope = _scope(name.project, "CreateDeployment")
        body = _body(request)
        made: list[Deployment] = []

        def look(connection: sa.Connection) -> bytes:
            return remember(connection, scope=scope, request_id=request.request_id, request=body, make=_unknown)

        def write(connection: sa.Connection) -> bytes:
            def make() -> bytes:
                store.insert(connection, deployment)
                made.append(deployment)
                return deployment_to(deployment).SerializeToString(deterministic=True)

            return remember(connection, scope=scope, request_id=request.request_id, request=body, make=make)

        try:  # before the registry is asked: an alias may have moved since the first call
            return inference_pb2.Deployment.FromString(await self._database.write(look))
        except _NotAnsweredYet:
            pass
        deployment = _deployment(name, request.deployment.model, await self._registry.layers(request.deployment.model))

        async def store_and_serve() -> bytes:
            answer = await self._database.write(write)
            if made:
                self._serving.add(deployment)
            return answer

        held = [deployment.layers[-1].version]
        answer = await self._holding.make(str(name), held, store_and_serve)
        return inference_pb2.Deployment.FromString(answer)

    async def GetDeployment(self, request: inference_pb2.GetDeploymentRequest, _: Any) -> inference_pb2.Deployment:
        """Returns a deployment."""
        name = DeploymentName.parse(request.name)
        deployment = await self._database.read(lambda connection: store.find(connection, name))
        if deployment is None:
            raise not_found("deployment", name)
        return deployment_to(self._serving.as_it_is(deployment))

    async def ListDeployments(
        self, request: inference_pb2.ListDeploymentsRequest, _: Any
    ) -> inference_pb2.ListDeploymentsResponse:
        """Lists a project's deployments."""
        project = ProjectName.parse(request.parent).project
        page = pages.page_of(request.page_size, request.page_token, scope=f"ListDeployments {request.parent}")
        found, token = await self._database.read(lambda connection: store.page(connection, project, page))
        return inference_pb2.ListDeploymentsResponse(
            deployments=[deployment_to(self._serving.as_it_is(deployment)) for deployment in found],
            next_page_token=token,
        )

    async def DeleteDeployment(
        self, request: inference_pb2.DeleteDeploymentRequest, _: Any
    ) -> inference_pb2.DeleteDeploymentResponse:
        """Deletes a deployment."""
        name = DeploymentName.parse(request.name)
        scope = _scope(name.project, "DeleteDeployment")
        deleted: list[DeploymentName] = []

        def write(connection: sa.Connection) -> bytes:
            def make() -> bytes:
                store.delete(connection, name)
                deleted.append(name)
                return b""

            body = _body(request)
            return remember(connection, scope=scope, request_id=request.request_id, request=body, make=make)

        await self._database.write(write)
        if deleted:
            self._serving.remove(name)
            self._holding.poke()
        return inference_pb2.DeleteDeploymentResponse()

    async def Generate(
        self, request: inference_pb2.GenerateRequest, _: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Completes prompts."""
        name = DeploymentName.parse(request.name)
        served: inference_pb2.ServedModel | None = None
        async for deployment, piece in self._serving.generate(name, request_from(request)):
            served = served or served_to(deployment)
            yield piece_to(piece, served)


def _new_name(request: inference_pb2.CreateDeploymentRequest) -> DeploymentName:
    """Reads what a new deployment is to be called and to serve, and lists all that is wrong with it."""
    project = ProjectName.parse(request.parent).project
    violations = []
    if not is_id(request.deployment_id):
        violations.append(FieldViolation("deployment_id", f"It is {request.deployment_id!r}; an id is {ID_FORM}."))
    try:
        reference = parse_model_reference(request.deployment.model)
    except ValueError as error:
        violations.append(FieldViolation("deployment.model", f"{error}."))
    else:
        if reference.project != project:
            problem = f"The model belongs to the project {reference.project}; deploy it there."
            violations.append(FieldViolation("deployment.model", problem))
    if violations:
        raise invalid_fields(violations)
    return DeploymentName(project, request.deployment_id)


def _deployment(name: DeploymentName, model: str, layers: tuple[Layer, ...]) -> Deployment:
    return Deployment(
        name=name,
        model=model,
        layers=layers,
        state=DeploymentState.LOADING,
        template_sha256="",
        failure=None,
        create_time_us=time.time_ns() // 1000,
        creator=context.current().actor,
    )


def _scope(project: str, method: str) -> RequestScope:
    return RequestScope(principal=context.current().actor, project=project, method=method)


def _body(request: Any) -> bytes:
    return bytes(request.SerializeToString(deterministic=True))


def _unknown() -> bytes:
    raise _NotAnsweredYet
