"""What the methods of all topics share: the library, changes with their request id, pages."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from sqlalchemy import Connection

from services.grpckit.context import current
from services.grpckit.pages import Page, page_of
from services.grpckit.request_memory import RequestScope, remember
from services.registry.collections import Collection
from services.registry.library import Library, now_us
from tuneforge.names import DatasetName, ModelName

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer", bound=Message)


class Calls:
    """Methods of one topic; `RegistryServicer` puts the topics together."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._database = library.database

    async def _read(self, request: Any, read: Callable[[Connection], Message]) -> Any:
        """Answers a call from its request, the database and which projects the caller may touch, serialised already.

        Not for answers that depend on the time, or on anything else of who asks.
        """
        scope = ",".join(sorted(current().principal.projects))
        return await self._library.answers.of(request, read, scope=scope)

    async def _change(
        self, request: Any, project: str, kind: type[Answer], change: Callable[[Connection], Answer]
    ) -> Answer:
        """Makes a change together with the memory of its request id, and returns the first answer to that id."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        scope = RequestScope(principal=current().actor, project=project, method=method)
        body = request.SerializeToString(deterministic=True)

        def run(connection: Connection) -> bytes:
            return remember(
                connection,
                scope=scope,
                request_id=request.request_id,
                request=body,
                make=lambda: change(connection).SerializeToString(),
            )

        return kind.FromString(await self._database.write(run))


def new_collection(name: DatasetName | ModelName, description: str) -> Collection:
    """Returns a data set or a model that the caller is about to make."""
    return Collection(name=name, description=description, create_time_us=now_us(), creator=current().actor)


def version_number(version: Any) -> str:
    """Returns the number in a version message's name, as the page after it begins with."""
    return str(version.name.rpartition("/")[2])


def size_bytes(message: Message) -> int:
    """Returns what a message takes of a page."""
    return message.ByteSize()


def page_of_request(request: Any) -> Page:
    """Reads the page that a list request asks for.

    Raises:
        ServiceError: `INVALID_FIELD`, `INVALID_PAGE_TOKEN`.
    """
    return page_of(request.page_size, request.page_token, scope=f"{request.DESCRIPTOR.name} {request.parent}")
