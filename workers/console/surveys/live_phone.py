"""A phone of a simulated channel: what it texts goes through the whole of Parley, as from outside.

The console is a client of `web` here, as `parley phone` is: it posts what a provider would, and asks the simulator what has come. Who
is signed in has phones of their own, whose numbers are among those that France keeps for films (+33 6 39 98). What they texted is
remembered by this process alone, and only the last of it.
"""

from collections import OrderedDict, deque
from datetime import UTC, datetime
from hashlib import sha256
from threading import Lock
from typing import Any

import msgspec
import requests
from falcon.asgi import Request

from config.settings.channels import Channel
from config.settings.settings import local_url
from config.store import keyspace, redis_client, stored_values
from engine.model.errors import ParleyError
from engine.model.lane import UnreadableLaneError, decode_lane
from engine.model.segments import count_segments
from workers.console.surveys.phone_lines import LONGEST_TEXT, PhoneLine
from workers.store.deployment import Deployment

HTTP_TIMEOUT_S = 5.0
PHONES_EACH = 10
"""Phones that one who is signed in has."""

KEPT_PHONES = 200
KEPT_TEXTS = 100

_FILM_NUMBERS = "+3363998"


class NoLivePhoneError(ParleyError):
    """`web` does not take the phone's SMS, or does not say what has come. The message says why."""


class LiveScreen(msgspec.Struct, frozen=True, kw_only=True):
    """What is on the phone, oldest first, and the step at which its session is; empty: it has none."""

    lines: list[PhoneLine]
    step: str = ""
    problem: str = ""


class LivePhones:
    """The phones of those who are signed in. Its methods wait for `web` and for Redis."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        settings = deployment.settings
        self._base = local_url(settings.host, settings.port)
        self._sent: OrderedDict[str, deque[PhoneLine]] = OrderedDict()
        self._lock = Lock()

    def refusal(self, survey: str) -> str:
        """Why there is no such phone; empty if there is."""
        if not self._deployment.settings.only_simulated:
            return "There are live phones only where every channel is simulated."
        return "" if self.channels(survey) else "No channel offers this survey."

    def channels(self, survey: str) -> list[Channel]:
        return [each for each in self._deployment.settings.channels.values() if survey in each.surveys]

    def number_of(self, user: str, phone: int) -> str:
        """The same person's phone has the same number, wherever and whenever they sign in."""
        digest = sha256(f"{user}\0{phone}".encode()).digest()
        return f"{_FILM_NUMBERS}{int.from_bytes(digest[:8], 'big') % 10_000:04}"

    def text(self, survey: str, channel: str, number: str, text: str) -> None:
        """Send an SMS from the phone. Raises NoLivePhoneError."""
        if why := self.refusal(survey):
            raise NoLivePhoneError(why)
        found = next((each for each in self.channels(survey) if each.name == channel), None)
        if found is None:
            raise NoLivePhoneError(f"No channel that offers this survey is called {channel!r}.")
        if not text.strip():
            raise NoLivePhoneError("Write something first.")
        if len(text) > LONGEST_TEXT:
            raise NoLivePhoneError(f"An SMS has at most {LONGEST_TEXT:,} characters here.")
        received = self._received(number)
        now = datetime.fromtimestamp(self._deployment.host.wall_s(), UTC)
        callback = {
            "message_id": received[-1]["ticket"] if received else "",
            "number": number,
            "text": text,
            "sim_card_number": "",
            "reception_date": now.isoformat(sep=" "),
        }
        self._remember(number, PhoneLine("sent", text, self._deployment.host.wall_ms()))
        reply = self._request(
            "POST", f"/webhooks/{found.name}", params={"token": str(found.token)}, json=callback
        )
        if reply.status_code != requests.codes.ok:
            raise NoLivePhoneError(f"`web` did not take it: it answered {reply.status_code}.")

    def look(self, survey: str, number: str) -> LiveScreen:
        """What is on the phone. Raises redis.RedisError."""
        if why := self.refusal(survey):
            return LiveScreen(lines=[], problem=why)
        problem, received = "", []
        try:
            received = self._received(number)
        except NoLivePhoneError as e:
            problem = str(e)
        with self._lock:
            sent = [*self._sent.get(number, ())]
        lines = [
            PhoneLine("received", each["text"], each["at_ms"], count_segments(each["text"]).segments)
            for each in received
        ]
        ordered = sorted([*sent, *lines], key=lambda line: line.at)
        return LiveScreen(lines=ordered, step=self._find_step(survey, number), problem=problem)

    def screen_values(self, survey: str, user: str, req: Request) -> dict[str, object]:
        """Which of their phones somebody looks at, for the page."""
        phone = req.get_param_as_int("n", min_value=0, max_value=PHONES_EACH - 1, default=0)
        screen = self.look(survey, number := self.number_of(user, phone))
        return {
            "screen": screen,
            "live_number": number,
            "live_phone": phone,
            "live_channels": self.channels(survey),
            "phones_each": PHONES_EACH,
            "live_problem": "",
        }

    def _find_step(self, survey: str, number: str) -> str:
        """Where the lane's session of the survey waits."""
        deployment = self._deployment
        k = keyspace.shard_of(number, deployment.settings.shards)
        stored = redis_client.run_command(deployment.lanes, ("GET", keyspace.lane_key(k, number)))
        if not stored:
            return ""
        try:
            lane = decode_lane(stored_values.lane_state(stored))
        except UnreadableLaneError:
            return ""
        for line in lane.lines.values():
            if (session := line.session) is not None and session.survey == survey:
                version = deployment.surveys.by_version(session.version)
                return version.steps[session.step].id if version is not None else ""
        return ""

    def _received(self, number: str) -> list[dict[str, Any]]:
        reply = self._request("GET", f"/simulator/phones/{number}", params={"after": "0-0", "wait": "0"})
        if reply.status_code != requests.codes.ok:
            raise NoLivePhoneError(f"`web` does not say what has come: it answered {reply.status_code}.")
        messages: list[dict[str, Any]] = reply.json()["messages"]
        return messages

    def _remember(self, number: str, line: PhoneLine) -> None:
        with self._lock:
            self._sent.setdefault(number, deque(maxlen=KEPT_TEXTS)).append(line)
            self._sent.move_to_end(number)
            while len(self._sent) > KEPT_PHONES:
                self._sent.popitem(last=False)

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return requests.request(method, self._base + path, timeout=HTTP_TIMEOUT_S, **options)
        except requests.RequestException as e:
            raise NoLivePhoneError(f"`web` does not answer ({type(e).__name__}): does it run?") from e
