"""How the worker that looks at rows answers: one byte that tells the kind, four of length, then that many bytes."""

import struct
from typing import Final

HEADER: Final = struct.Struct(">cI")
