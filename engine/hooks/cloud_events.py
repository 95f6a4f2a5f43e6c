"""How is an event written? As CloudEvents 1.0 in JSON, one, or several as a batch.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from engine.hooks.event_data import CloudEvent
from engine.hooks.hook_events import HookEvent

EVENT_MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
EVENT_CONTENT_TYPE = f"{EVENT_MEDIA_TYPE}; charset=utf-8"
BATCH_CONTENT_TYPE = f"{BATCH_MEDIA_TYPE}; charset=utf-8"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


def render_event(event: HookEvent, pseudonym: str, number: str = "", public_url: str = "") -> bytes:
    """Write an event. `number`: the person's, for endpoints that may see it; empty: it is not told. An empty `pseudonym` is
    not known."""
    person = {"pseudonym": pseudonym or UNSET, "identifier": number or UNSET}
    return _encode(
        CloudEvent(
            specversion="1.0",
            id=event.id,
            source=f"{public_url.rstrip('/')}/channels/{quote(event.channel, safe='')}",
            type=event.type,
            subject=event.session or UNSET,
            time=_format_rfc3339(event.at),
            datacontenttype="application/json",
            partitionkey=number or pseudonym or UNSET,
            sequence=event.sequence,
            data=msgspec.structs.replace(event.data, **person),
        )
    )


def render_test_event(identity: str, hook: str, at: int, public_url: str = "") -> bytes:
    """Write the event that tries an endpoint: of the type `hook.test`, which no endpoint gets by itself."""
    return _encode(
        {
            "specversion": "1.0",
            "id": identity,
            "source": f"{public_url.rstrip('/')}/hooks/{quote(hook, safe='')}",
            "type": "hook.test",
            "time": _format_rfc3339(at),
            "datacontenttype": "application/json",
            "data": {"hook": hook},
        }
    )


def render_batch(rendered: Iterable[bytes]) -> bytes:
    """Write events, each as `render_event` has written it, as a batch."""
    return b"[%b]" % b",".join(rendered)


def _format_rfc3339(ms: int) -> str | UnsetType:
    """`2026-11-29T02:10:00.000Z`; not there if it is no time of the calendar."""
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return UNSET
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
