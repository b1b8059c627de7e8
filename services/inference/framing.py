"""Messages between the service and its engines: JSON objects, each behind its length in 4 bytes.

Both ends are ours and of one release; JSON keeps one end's fault from becoming code at the other. Needs no torch and no
grpc.
"""

import asyncio
import json
import socket
import struct
from typing import Any, Final

MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest message: 64 prompts of a whole context window fit many times."""
_LENGTH: Final = struct.Struct(">I")

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """Returns a message with its length before it."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def receive(connection: socket.socket) -> Message | None:
    """Waits for the next message; None at the end of the connection."""
    head = _exactly(connection, _LENGTH.size)
    body = _exactly(connection, _size(head)) if head else None
    return None if body is None else _parse(body)


async def read(reader: asyncio.StreamReader) -> Message | None:
    """Waits for the next message; None at the end of the connection."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        return _parse(await reader.readexactly(_size(head)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(min(count - len(parts), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


def _size(head: bytes) -> int:
    size = int(_LENGTH.unpack(head)[0])
    if size > MAX_BYTES:
        raise ValueError(f"a message of {size} bytes is above the limit of {MAX_BYTES}")
    return size


def _parse(body: bytes) -> Message:
    message = json.loads(body)
    if not isinstance(message, dict):
        raise TypeError("a message is not an object")
    return message
