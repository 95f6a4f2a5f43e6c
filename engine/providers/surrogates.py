"""An SMS that was cut in the middle of an emoji holds half of a surrogate pair, which JSON can write and UTF-8 cannot."""

import json
from collections.abc import Callable
from typing import TypeVar

import msgspec

Decoded = TypeVar("Decoded")


def decode_json(decoder: Callable[[bytes], Decoded], body: bytes) -> Decoded:
    """What `decoder` makes of JSON, with a `?` for every such half. Raises ValueError and RecursionError."""
    try:
        return decoder(body)
    except msgspec.DecodeError:
        return decoder(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))
