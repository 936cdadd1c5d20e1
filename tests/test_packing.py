"""Data in pages: what zlib and base64 undo is what was packed."""

import base64
import json
import zlib

from audit.report.packing import pack, pack_json


def undo(text):
    return zlib.decompress(base64.b64decode(text, validate=True))


def test_bytes_come_back():
    for content in (b"", b"\x00", bytes(range(256)) * 9):
        assert undo(pack(content)) == content
        assert undo(pack(content, level=1, strategy=zlib.Z_RLE)) == content


def test_json_is_lean_and_names_that_utf8_cannot_say_do_no_harm():
    content = {"path": ["a\udcffb", "é"], "n": [1, None, 0.5]}
    assert undo(pack_json(content)) == '{"path":["a?b","é"],"n":[1,null,0.5]}'.encode()
    assert json.loads(undo(pack_json(content)))["n"] == [1, None, 0.5]


def test_text_needs_no_escaping():
    assert not set(pack(bytes(range(256)))) & set("<>&\"'\\")
