"""How what comes with an SMS and is no text (MMS) is shown in JSON, by the API and in events."""

import msgspec

from engine.model.events import Attachment


class AttachmentView(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What came with an SMS: its media type, and where the provider keeps it."""

    media_type: str
    url: str


def view_of_attachment(attachment: Attachment) -> AttachmentView:
    return AttachmentView(media_type=attachment.media_type, url=attachment.url)
