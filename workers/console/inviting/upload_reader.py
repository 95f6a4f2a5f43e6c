"""A form with a file, read as it comes: no more of it is kept than may be sent."""

from collections.abc import Mapping

import falcon
import msgspec
from falcon.asgi import Request
from falcon.asgi.multipart import BodyPart

LARGEST_FILE = 20_000_000
"""Bytes of a table."""

LARGEST_FIELD = 2_000
"""Bytes of any other field."""

LARGEST_READ = 10 * LARGEST_FILE
"""Bytes of a body that is too large but is read all the same, and forgotten: a browser shows an answer only once all is sent."""

MAX_FILE_NAME_LENGTH = 100


class UploadedForm(msgspec.Struct, frozen=True):
    """The fields by their names, and the file; `file_name` is what the browser calls it, for a person to read."""

    fields: Mapping[str, str]
    file_name: str
    content: bytes


async def read_upload(req: Request, file_field: str) -> UploadedForm:
    """Raises falcon.HTTPContentTooLarge, and falcon.HTTPError for what is no such form."""
    if (req.content_length or 0) > LARGEST_READ:
        raise _too_large()
    if not (req.content_type or "").lower().startswith("multipart/form-data"):
        raise falcon.HTTPUnsupportedMediaType(description="Expected the form of this page, with a file.")
    fields: dict[str, str] = {}
    file_name, content, is_too_large = "", b"", False
    async for part in await req.get_media():
        if part.name == file_field:
            file_name = shown_file_name(part.filename or "")
            found = await _read_part(part, LARGEST_FILE)
            content, is_too_large = found or b"", found is None
        else:
            found = await _read_part(part, LARGEST_FIELD)
            is_too_large = is_too_large or found is None
            fields[str(part.name)] = (found or b"").decode(errors="replace")
    if is_too_large:
        raise _too_large()
    return UploadedForm(fields, file_name, content)


def shown_file_name(written: str) -> str:
    """The last part of a file's name, without what is no letter; nothing is ever opened by it."""
    last = written.replace("\\", "/").rpartition("/")[2]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in last)[
        :MAX_FILE_NAME_LENGTH
    ]


async def _read_part(part: BodyPart, largest: int) -> bytes | None:
    """All of it, read to its end; None if it is too large. Raises falcon.HTTPContentTooLarge if there is no end of it."""
    read, kept = 0, bytearray()
    async for chunk in part.stream:
        read += len(chunk)
        if read <= largest:
            kept += chunk
        elif read > LARGEST_READ:
            raise _too_large()
    return bytes(kept) if read <= largest else None


def _too_large() -> falcon.HTTPContentTooLarge:
    return falcon.HTTPContentTooLarge(
        title="That is too much",
        description=f"A table may have {LARGEST_FILE // 1_000_000} MB. Nobody was invited. Divide it, or use "
        "`parley invite --csv`, which takes one of any size.",
    )
