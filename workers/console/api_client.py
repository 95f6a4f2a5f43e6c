"""The API of `web`, of which the console is a client as any other, with the key that `parley invite` uses."""

import os
from typing import Any

import requests

from config.invitations.invitation_client import InvitationApi
from config.settings.channels import SIMULATOR
from config.settings.settings import Settings, local_url
from engine.model.errors import ParleyError

HTTP_TIMEOUT_S = 5.0
API_KEY_VARIABLE = "PARLEY_API_KEY"


class ApiUnavailableError(ParleyError):
    """The API does not answer, or refuses the key. The text says what to do."""


class ApiClient:
    """Asks `web`, where the settings say that it listens. It waits: see BlockingCalls."""

    def __init__(self, settings: Settings) -> None:
        self._base = local_url(settings.host, settings.port)
        self._session = requests.Session()
        self._key = os.environ.get(API_KEY_VARIABLE) or SIMULATOR
        self._session.headers["Authorization"] = f"Bearer {self._key}"

    def get(self, path: str) -> Any | None:
        """Return what is there, None if there is nothing. Raises ApiUnavailableError."""
        return self._ask("GET", path)

    def patch(self, path: str, change: dict[str, Any]) -> Any | None:
        """Change what is there, and return it as it is then; None if there is nothing. Raises ApiUnavailableError."""
        return self._ask("PATCH", path, change)

    def invitations(self, survey: str, then: str) -> InvitationApi:
        """What sends many invitations to a survey; `then` says how to go on where nobody answers."""
        return InvitationApi(self._base, self._key, survey, then)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any | None:
        try:
            reply = self._session.request(method, f"{self._base}{path}", json=body, timeout=HTTP_TIMEOUT_S)
        except requests.RequestException as e:
            raise ApiUnavailableError(
                f"`web` does not answer at {self._base} ({type(e).__name__}); PARLEY_HOST and PARLEY_PORT "
                "say where it listens"
            ) from e
        match reply.status_code:
            case 200:
                return reply.json()
            case 404:
                return None
            case 401 | 403:
                raise ApiUnavailableError(
                    f"the API does not take the console's key: {API_KEY_VARIABLE} is it, and `parley key` "
                    "makes one"
                )
            case status:
                raise ApiUnavailableError(
                    f"`web` answered {status}: it works again by itself, or its log says why"
                )
