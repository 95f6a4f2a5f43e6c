"""`parley phone`: a phone in the terminal, texting a Parley whose channel uses the simulator.

It speaks HTTP only: what is typed is posted as Octopush would, and what is received comes from the simulator.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any, NoReturn

import click
import requests
from rich.console import Console
from rich.text import Text

from engine.commands.sms_lines import print_received, print_sent
from engine.commands.terminal import PROMPT, open_console
from engine.model.errors import ParleyError

try:
    from readline import get_line_buffer
except ImportError:  # a Python built without it: the line being typed is not shown again

    def get_line_buffer() -> str:
        return ""


HTTP_TIMEOUT_S = 5
POLL_WAIT_S = 20
"""How long one question for new SMS waits; the simulator's limit."""


class SimulatedPhoneError(ParleyError, click.ClickException):
    """Parley is not there, or is not one that a simulated phone can text."""


class PhoneConnection:
    """HTTP between one phone and one channel of Parley, texting `to`: one of its originators, or empty, its number."""

    def __init__(self, url: str, channel: str, token: str, phone: str, to: str = "") -> None:
        self._url = url.rstrip("/")
        self._channel = channel
        self._token = token
        self.phone = phone
        self._originator = to
        self.last_id = self._poll_messages(after="latest", wait=0, timeout_s=HTTP_TIMEOUT_S)["last"]
        self._ticket = ""

    def send_sms(self, words: str) -> None:
        """Send an SMS to the channel."""
        now = datetime.now().astimezone()
        callback = {
            "message_id": self._ticket,
            "number": self.phone,
            "text": words,
            "sim_card_number": self._originator,
            "reception_date": now.isoformat(sep=" "),
        }
        reply = _http_request(
            "POST",
            f"{self._url}/webhooks/{self._channel}",
            HTTP_TIMEOUT_S,
            params={"token": self._token},
            json=callback,
        )
        if reply.status_code != requests.codes.ok:
            _raise_failure(reply, self._channel)

    def receive_sms(self, wait_s: float) -> list[dict[str, Any]]:
        """The SMS that have come since the last call, waiting for the first."""
        answer = self._poll_messages(after=self.last_id, wait=wait_s, timeout_s=wait_s + HTTP_TIMEOUT_S)
        self.last_id = answer["last"]
        messages: list[dict[str, Any]] = answer["messages"]
        if messages:
            self._ticket = messages[-1]["ticket"]
        return messages

    def _poll_messages(self, *, after: str, wait: float, timeout_s: float) -> dict[str, Any]:
        reply = _http_request(
            "GET",
            f"{self._url}/simulator/phones/{self.phone}",
            timeout_s,
            params={"after": after, "wait": str(wait)},
        )
        if reply.status_code != requests.codes.ok:
            _raise_failure(reply, self._channel)
        answer: dict[str, Any] = reply.json()
        return answer


@click.command()
@click.option("--from", "phone", default="+33612345678", show_default=True, help="The phone's own number.")
@click.option("--channel", default="clinic", show_default=True, help="The channel to text.")
@click.option("--to", default="", help="One of the channel's originators.  [default: its own number]")
@click.option(
    "--url", default="", help="Where `web` listens.  [default: http://127.0.0.1:$PARLEY_PORT, or 8000]"
)
@click.option("--token", default="simulator", show_default=True, help="The channel's webhook token.")
@click.option(
    "--settle",
    "settle_s",
    default=3.0,
    show_default=True,
    help="Seconds without an SMS after which the next line of a script is texted.",
)
def phone(phone: str, channel: str, to: str, url: str, token: str, settle_s: float) -> None:
    """A phone in the terminal: type an SMS, and see the replies. Ctrl-D ends it.

    With a file or a pipe as its input it texts line by line, and waits for the replies to each.

    \b
    Example:
      parley phone
      printf 'START\\nAda\\n98.6\\n' | parley phone --from +33698765432
    """
    if not re.fullmatch(r"\+[0-9]{4,15}", phone):
        raise click.UsageError(f"--from {phone}: a number in full is expected, as in +33612345678")
    base = url or f"http://127.0.0.1:{os.environ.get('PARLEY_PORT', '8000')}"
    line = PhoneConnection(base, channel, token, phone, to)
    console = open_console(wrap_words=True)
    if sys.stdin.isatty():
        _talk_interactively(line, channel, console)
    else:
        _play_script(line, console, (words.rstrip("\r\n") for words in sys.stdin), settle_s)


def _play_script(line: PhoneConnection, console: Console, script: Iterator[str], settle_s: float) -> None:
    """Text each line, and print what comes until nothing has for `settle_s` seconds."""
    for words in script:
        if not words.strip():
            continue
        print_sent(console, words)
        line.send_sms(words)
        quiet_at = monotonic() + settle_s
        while (left_s := quiet_at - monotonic()) > 0:
            for message in line.receive_sms(min(left_s, POLL_WAIT_S)):
                _print_received(console, message)
                quiet_at = monotonic() + settle_s


def _talk_interactively(line: PhoneConnection, channel: str, console: Console) -> None:
    """Read from the terminal while another thread prints what comes."""
    console.print(
        Text(
            f"{line.phone} texting channel {channel}. Text START to begin, Ctrl-D to leave.\n"
            f"If nothing comes back, `parley lane {line.phone}` says why.",
            "dim",
        )
    )
    listener = _SmsPrinter(line, console)
    listener.start()
    while listener.is_alive():
        try:
            words = input(PROMPT)
        except (EOFError, KeyboardInterrupt):
            break
        if words.strip():
            line.send_sms(words)
    console.print()


class _SmsPrinter(Thread):
    """Prints SMS as they come, above the line that is being typed."""

    def __init__(self, line: PhoneConnection, console: Console) -> None:
        super().__init__(daemon=True)
        self._connection = line
        self._console = console

    def run(self) -> None:
        while True:
            try:
                messages = self._connection.receive_sms(POLL_WAIT_S)
            except SimulatedPhoneError as e:
                self._print_above_prompt(partial(self._console.print, Text(e.message, "red")))
                return
            for message in messages:
                self._print_above_prompt(partial(_print_received, self._console, message))

    def _print_above_prompt(self, print_it: Callable[[], None]) -> None:
        self._console.file.write("\r\x1b[K")
        print_it()
        self._console.file.write(PROMPT + get_line_buffer())
        self._console.file.flush()


def _print_received(console: Console, message: dict[str, Any]) -> None:
    at = datetime.fromtimestamp(message["at_ms"] / 1000).astimezone()
    print_received(console, message["text"], f"{at:%H:%M:%S} ")


def _http_request(method: str, url: str, timeout_s: float, **options: Any) -> requests.Response:
    try:
        return requests.request(method, url, timeout=timeout_s, **options)
    except requests.ConnectionError as e:
        raise SimulatedPhoneError(
            f"nothing listens at {url}: start `parley run`, or say where with --url"
        ) from e
    except requests.RequestException as e:
        raise SimulatedPhoneError(
            f"{url} does not answer ({type(e).__name__}): is `parley run` still well?"
        ) from e


def _raise_failure(reply: requests.Response, channel: str) -> NoReturn:
    match reply.status_code:
        case 403:
            raise SimulatedPhoneError(f"the channel {channel} has another token: give it with --token")
        case 404 if "/webhooks/" in reply.url:
            raise SimulatedPhoneError(
                f"there is no channel {channel}: name one of parley.toml's with --channel"
            )
        case 404:
            raise SimulatedPhoneError(
                'not every channel there has provider = "simulator", and only then are there phones'
            )
        case 503:
            raise SimulatedPhoneError(f"Parley's {_title_of(reply)}; nothing was sent, try again")
        case status:
            raise SimulatedPhoneError(f"Parley answered {status}: {reply.text[:200]}")


def _title_of(reply: requests.Response) -> str:
    """What the answer says is the matter: `Redis is full`."""
    try:
        return str(reply.json()["title"])
    except (ValueError, KeyError, TypeError):
        return "Redis does not answer"
