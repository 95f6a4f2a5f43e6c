"""`GET /v1/campaigns` and `/v1/campaigns/<name>`."""

from http import HTTPStatus

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.invitations.line_result import FieldError
from ingest.api.authentication import ApiAuthenticator
from ingest.api.campaigns.campaign_reader import CampaignReader
from ingest.api.campaigns.campaign_view import CampaignChange, CampaignView
from ingest.api.ndjson import MAX_LINE_BYTES
from ingest.api.problems import ApiError, in_plain_words
from ingest.api.query_parameters import QueryParameters


class LatestCampaigns:
    """`/v1/campaigns`."""

    def __init__(self, doorman: ApiAuthenticator, reader: CampaignReader) -> None:
        self._authenticator = doorman
        self._reader = reader

    async def on_get(self, req: Request, resp: Response) -> None:
        key = await self._authenticator.authenticate(req)
        QueryParameters(req, ()).require_valid()
        _write_document(resp, await self._reader.read_latest(key))


class CampaignByName:
    """`/v1/campaigns/<name>`."""

    def __init__(self, doorman: ApiAuthenticator, reader: CampaignReader) -> None:
        self._authenticator = doorman
        self._reader = reader

    async def on_get(self, req: Request, resp: Response, campaign: str) -> None:
        key = await self._authenticator.authenticate(req)
        QueryParameters(req, ()).require_valid()
        _write_campaign(resp, await self._reader.read(campaign, key))

    async def on_patch(self, req: Request, resp: Response, campaign: str) -> None:
        key = await self._authenticator.authenticate_writer(req)
        QueryParameters(req, ()).require_valid()
        change = _decode_change(await req.stream.read(MAX_LINE_BYTES))
        _write_campaign(resp, await self._reader.pause(campaign, key, change))


def _decode_change(body: bytes) -> CampaignChange:
    try:
        return msgspec.json.decode(body, type=CampaignChange)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        sentence = str(e).partition(" - at ")[0].replace("`", "")
        why = in_plain_words(sentence[:1].lower() + sentence[1:])
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "the campaign is left as it is",
            errors=[FieldError("", f'expected {{"paused": true}} or {{"paused": false}}: {why}')],
        ) from e


def _write_campaign(resp: Response, view: CampaignView | None) -> None:
    if view is None:
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            "no such campaign",
            "nothing that this key may see was invited by a campaign of this name",
        )
    _write_document(resp, view)


_encode = msgspec.json.Encoder().encode


def _write_document(resp: Response, document: msgspec.Struct) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encode(document)
