"""The engine's two threads: one takes orders from the service, the other computes.

Orders: `load` (answer `loaded` or `unloadable`), `unload`, `generate` (answers `accepted`, then `pieces` until each row
has ended, or `refused`, or `failed`), `cancel`. Prompts are read by the thread that takes orders, so a malformed one is
refused at once, while the other thread computes. The end of the connection ends both.
"""

import queue
import socket
import threading
from collections.abc import Sequence

from services.grpckit.logging import get_logger
from services.inference.engine.batch import Batch, Piece, Row
from services.inference.engine.intake import Job, read_request
from services.inference.engine.models import ModelKey, Models, artifact_from
from services.inference.engine.rotation import Rotation
from services.inference.framing import Message, pack, receive
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from tuneforge.data.faults import RenderingError
from tuneforge.manifest import IntegrityError

_log = get_logger(__name__)


class Engine:
    """One engine on one connection."""

    def __init__(self, connection: socket.socket, models: Models, *, max_rows: int) -> None:
        """Takes the connection to the service, the models, and the most rows that run at once for one model."""
        self._connection = connection
        self._models = models
        self._rotation = Rotation(self._start, max_rows)
        self._inbox: queue.SimpleQueue[Job | Message | None] = queue.SimpleQueue()
        self._sending = threading.Lock()

    def run(self) -> None:
        """Takes orders and computes until the connection ends."""
        threading.Thread(target=self._take_orders, name="orders", daemon=True).start()
        while self._follow_orders():
            if not self._rotation.is_idle:
                self._compute()

    def _take_orders(self) -> None:
        while (order := receive(self._connection)) is not None:
            if order["op"] == "generate":
                self._take_request(order)
            else:
                self._inbox.put(order)
        self._inbox.put(None)

    def _take_request(self, order: Message) -> None:
        base = self._models.base
        if base is None or not self._models.has(tuple(order["adapters"])):
            self._send({"op": "failed", "id": order["id"], "message": "The model is not loaded."})
            return
        try:
            job = read_request(order, base, self._models.character_limit)
        except Exception:  # noqa: BLE001 - one request's fault must not end the others
            _log.error("a request could not be read", exc_info=True)
            self._send({"op": "failed", "id": order["id"], "message": "The request could not be read."})
            return
        if isinstance(job, Job):
            self._send({"op": "accepted", "id": job.number})
            self._inbox.put(job)
        else:
            self._send({"op": "refused", "id": order["id"], "violations": job})

    def _follow_orders(self) -> bool:
        """Does what was ordered meanwhile, waiting for an order when there is nothing to compute; False at the end."""
        while True:
            try:
                order = self._inbox.get(block=self._rotation.is_idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            if isinstance(order, Job):
                self._rotation.add(order)
            elif order["op"] == "cancel":
                self._rotation.cancel(order["id"])
            elif order["op"] == "unload":
                self._models.unload(order["adapters"])
            elif order["op"] == "load":
                self._load(order)

    def _load(self, order: Message) -> None:
        layers = [artifact_from(layer) for layer in order["layers"]]
        try:
            self._models.load(layers)
            base = self._models.base
            assert base is not None
        except IntegrityError as error:
            cure = "Make the deployment again: the damaged copy is discarded and its files are fetched anew."
            message = f"A file is not what its manifest says: {error}."
            self._refuse(order, "INTEGRITY", message, cure, damaged_digest=_damaged(layers), file=error.path)
        except (InvalidModel, RenderingError) as error:
            self._refuse(order, "INVALID_MODEL", error.message, error.cure)
        except Exception as error:  # noqa: BLE001 - the deployment fails, the engine goes on
            _log.error("a model could not be loaded", exc_info=True)
            is_memory = isinstance(error, MemoryError) or "memory" in str(error).lower()
            reason = "OUT_OF_MEMORY" if is_memory else "INTERNAL"
            self._refuse(order, reason, f"The model could not be loaded ({type(error).__name__}).", "")
        else:
            self._send({"op": "loaded", "id": order["id"], "template_sha256": base.chat_format.sha256})

    def _refuse(self, order: Message, reason: str, message: str, cure: str, **damage: str) -> None:
        why = {"damaged_digest": "", "file": ""} | damage
        self._send({"op": "unloadable", "id": order["id"], "reason": reason, "message": message, "cure": cure} | why)

    def _start(self, key: ModelKey, rows: Sequence[Row]) -> Batch:
        base = self._models.base
        assert base is not None
        return Batch(lambda: self._models.put_in_force(key), base.stop_ids, rows)

    def _compute(self) -> None:
        try:
            pieces = self._rotation.step()
        except Exception:  # noqa: BLE001 - one batch's fault must not end the others
            _log.error("a step failed", exc_info=True)
            for number in self._rotation.drop_current():
                self._send({"op": "failed", "id": number, "message": "The computation failed."})
            return
        if pieces:
            self._send({"op": "pieces", "pieces": [_fields(piece) for piece in pieces]})

    def _send(self, message: Message) -> None:
        try:
            with self._sending:
                self._connection.sendall(pack(message))
        except OSError:
            self._inbox.put(None)


def _damaged(layers: Sequence[LocalArtifact]) -> str:
    """Returns the digest of the first artifact that has a damaged file."""
    for layer in layers:
        try:
            layer.verify()
        except IntegrityError:
            return layer.digest
    return ""


def _fields(piece: Piece) -> list[int | str]:
    row = piece.row
    return [row.request, row.index, piece.text, piece.finish, len(row.prompt), row.made]
