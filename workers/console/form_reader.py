"""What a form of ours has sent, by the names of its fields; nothing, if nothing in it was filled in."""

from collections.abc import Mapping

import falcon
from falcon.asgi import Request

LARGEST_FORM = 200_000
"""Bytes of what a page sends: of a phone's, a conversation, each sign of it in three."""


async def read_form(req: Request) -> Mapping[str, str]:
    """Raises falcon.HTTPContentTooLarge, and falcon.HTTPError for what is no form. Of a field that came twice, the last."""
    if req.content_length is None or req.content_length > LARGEST_FORM:
        raise falcon.HTTPContentTooLarge(title="That is too much")
    sent = await req.get_media(default_when_empty={})
    if not isinstance(sent, dict):
        return {}
    return {str(name): str(value[-1] if isinstance(value, list) else value) for name, value in sent.items()}
