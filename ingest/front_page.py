"""`GET /`: what is this, and where are things? The same bytes for everybody: no channel, no number, no secret."""

from collections.abc import Iterator

import falcon
from falcon.asgi import Request, Response

from config.settings.settings import Settings

_EVERYWHERE = (
    ("/webhooks/<channel>", "providers call this; `parley check` has the URL of each channel"),
    ("/v1/openapi.json", "the API, described; `parley key` makes a key to it"),
    ("/readyz", "would a webhook be accepted?"),
    ("/healthz", "does this process serve?"),
)
_DOCUMENTS = "In the source: README.md, and README.md of config, ingest, workers and engine/providers."


class FrontPageResource:
    """The resource, in plain text."""

    def __init__(self, settings: Settings) -> None:
        self._page = "\n".join(_page_lines(settings)).encode()

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.data = self._page


def _page_lines(settings: Settings) -> Iterator[str]:
    yield "This is Parley, which holds conversations by SMS: its process `web`."
    yield ""
    paths = list(_EVERYWHERE)
    if not settings.metrics_port:
        paths.append(("/metrics", "what was counted, for Prometheus"))
    if settings.only_simulated:
        paths.append(("/simulator/phones/<number>", "simulated phones: `parley phone` is one"))
    width = max(len(path) for path, _ in paths)
    for path, meaning in paths:
        yield f"  {path:{width}}  {meaning}"
    yield ""
    yield _DOCUMENTS
    yield ""
