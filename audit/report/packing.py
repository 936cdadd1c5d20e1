"""Data in a page: base64 of a zlib stream (RFC 1950), which `unpack` of `static/report.js` undoes.

In: bytes, or what JSON can hold. Out: text of letters, digits, `+`, `/` and `=`, safe in any page.
"""

import base64
import json
import zlib
from typing import Any

THOROUGH = 9
"""zlib's highest level, for what is packed once in a report."""


def pack(content: bytes, level: int = -1, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    """Pack bytes; `level` and `strategy` are zlib's."""
    stream = zlib.compressobj(level, strategy=strategy)
    return base64.b64encode(stream.compress(content) + stream.flush()).decode("ascii")


def pack_json(content: Any) -> str:
    """Pack a value as JSON in UTF-8; what UTF-8 cannot say, of a file's name, becomes `?`."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return pack(text.encode("utf-8", "replace"), THOROUGH)
