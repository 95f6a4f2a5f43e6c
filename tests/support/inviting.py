"""A client of the API, a key to it, and a configuration in which that key has something to open."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import requests

from config.store import function_calls, keyspace
from config.store.counts import campaigns
from config.store.server_functions import HoldInvitations, InvitationToHold
from engine.model.events import Invitation, encode_event
from tests.support.waiting import HANG_S, until

KEY = "parley_a-key-for-tests"
OTHER_KEY = "parley_another-key-for-tests"
LINES = "application/x-ndjson"
TIMEOUT_S = 60


def key_table(
    name: str = "tests",
    key: str = KEY,
    channels: Iterable[str] = ("clinic",),
    per_minute: int = 0,
    more: str = "",
) -> str:
    """`[keys.<name>]` of parley.toml. `more` are further lines of it."""
    listed = ", ".join(f'"{channel}"' for channel in channels)
    digest = sha256(key.encode()).hexdigest()
    return f'\n[keys.{name}]\nsha256 = "{digest}"\nchannels = [{listed}]\nrequests_per_minute = {per_minute}\n{more}\n'


class Api:
    """HTTP to the API of the `web` process at `base`."""

    def __init__(self, base: str, key: str = KEY) -> None:
        self.base = base
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def invite(self, survey: str = "clinic", **fields: Any) -> requests.Response:
        return self.post(json.dumps(fields).encode(), survey=survey)

    def invite_persistently(self, survey: str = "clinic", **fields: Any) -> requests.Response:
        """As a client does: it posts the same again while the answer is 503, as Redis has a second to answer, and a busy machine
        takes longer."""
        replies: list[requests.Response] = []

        def is_answered() -> bool:
            replies[:] = [self.invite(survey, **fields)]
            return replies[0].status_code != 503

        until(is_answered, HANG_S, "an answer")
        return replies[0]

    def post(
        self, body: Any, *, survey: str = "clinic", media_type: str = "application/json"
    ) -> requests.Response:
        return self._session.post(
            f"{self.base}/v1/surveys/{survey}/invitations",
            data=body,
            headers={"Content-Type": media_type},
            timeout=TIMEOUT_S,
        )

    def invite_all(self, bodies: Iterable[Mapping[str, Any]], survey: str = "clinic") -> list[dict[str, Any]]:
        """Many in one request; what came of each."""
        body = "".join(json.dumps(each) + "\n" for each in bodies).encode()
        return lines_of(self.post(body, survey=survey, media_type=LINES))

    def get(self, path: str, query: Any = None, accept: str = "application/json") -> requests.Response:
        return self._session.get(
            f"{self.base}{path}", params=query, headers={"Accept": accept}, timeout=TIMEOUT_S
        )

    def send(
        self, method: str, path: str, body: bytes, media_type: str = "application/json"
    ) -> requests.Response:
        return self._session.request(
            method,
            f"{self.base}{path}",
            data=body,
            headers={"Content-Type": media_type},
            timeout=TIMEOUT_S,
        )

    def session(self, session: str) -> requests.Response:
        return self._session.get(f"{self.base}/v1/sessions/{session}", timeout=TIMEOUT_S)

    def find(self, **query: str) -> requests.Response:
        return self._session.get(f"{self.base}/v1/sessions", params=query, timeout=TIMEOUT_S)

    def cancel(self, session: str) -> requests.Response:
        return self._session.delete(f"{self.base}/v1/sessions/{session}", timeout=TIMEOUT_S)


def lines_of(reply: requests.Response) -> list[dict[str, Any]]:
    assert reply.status_code == requests.codes.ok, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def hold_command(
    k: int, sender: str, event: Invitation, until_ms: int, not_before_ms: int = 0
) -> function_calls.Command:
    """The command by which `web` holds an invitation."""
    held = InvitationToHold(
        held_ids=keyspace.held_ids_key(k, event.channel),
        session=keyspace.session_key(k, event.id),
        id=event.id,
        not_before_ms=not_before_ms,
        until_ms=until_ms,
        sender=sender,
        event=encode_event(event),
        state=campaigns.HELD,
        campaign=event.campaign,
        campaign_part=campaigns.campaign_part(event.channel, event.survey),
    )
    return function_calls.function_call(
        HoldInvitations(
            held_invitations=keyspace.held_invitations_key(k),
            events=keyspace.events_key(k),
            campaigns=keyspace.campaigns_key(k),
            campaign_sessions=keyspace.campaign_sessions_key(k),
            invitations=[held],
        )
    )
