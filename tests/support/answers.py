"""Reads the typed error of a refused call."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from tuneforge.errors import TuneforgeError, from_rpc_error


async def refusal(answer: Awaitable[Any], code: str) -> TuneforgeError:
    """Returns the typed error of a call that must be refused with a gRPC code."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    assert caught.value.code().name == code, caught.value
    return from_rpc_error(caught.value)
