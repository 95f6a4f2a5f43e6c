"""HTTP to one provider: a request is made once, and every way in which it may end is an outcome.

A request of which no byte left has carried nothing; whatever else goes wrong, the provider may have the SMS.
"""

import re
from collections.abc import Callable, Container, Iterator
from typing import Protocol, TypeVar, cast

import requests
import structlog

from config.host import THIS_HOST, Host
from engine.model.events import OutboundSms
from engine.providers import (
    AccountAnswer,
    AccountProvider,
    LookupProvider,
    OutcomeUnknown,
    Provider,
    ProviderRequest,
    RetryLater,
    SendOutcome,
    SmsNotFound,
)
from workers.sending.deadline_transport import DeadlineTransport, ExchangeDeadline, TooLateToSendError
from workers.sending.http_connection import HttpAnswer
from workers.sending.provider_route import NothingSentError

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 3.0
"""How long a try may take until the first byte of its request leaves: resolving, connecting, a proxy and TLS together."""

TRY_TIMEOUT_S = 9.0
"""How long a try may take altogether, until its answer has been read."""

_NOT_SENT_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    NothingSentError,
)

_HTTP_STATUS_CODE = re.compile(r"http [1-5][0-9][0-9]")
_REQUESTS_ERROR_NAMES = frozenset(
    name for name, it in vars(requests.exceptions).items() if isinstance(it, type)
)

Reading = TypeVar("Reading")


def try_deadline(begun_s: float) -> ExchangeDeadline:
    """The deadline of a send that begins at this moment of the host's monotonic clock."""
    return ExchangeDeadline(begun_s + CONNECT_TIMEOUT_S, begun_s + TRY_TIMEOUT_S)


class ProviderTransport(Protocol):
    """Makes a request once, by a deadline. Raises requests' errors: of those that carried nothing, each is one of _NOT_SENT_ERRORS or
    has one in it."""

    async def exchange(self, request: ProviderRequest, deadline: ExchangeDeadline) -> HttpAnswer: ...

    def close(self) -> None: ...


class ProviderClient:
    """Kept-alive connections to a provider, for one event loop; `close`, in its thread, ends those on which nothing is asked."""

    def __init__(
        self, provider: Provider, transport: ProviderTransport | None = None, host: Host = THIS_HOST
    ) -> None:
        self.recourse = provider.recourse
        self._provider = provider
        self._host = host
        self._transport = transport or DeadlineTransport(provider.url)

    def close(self) -> None:
        self._transport.close()

    async def send(self, sms: OutboundSms, deadline: ExchangeDeadline) -> SendOutcome | None:
        """Try once. None: its time was over before the first byte could leave, and nothing was sent."""
        try:
            return await self._make_request(
                self._provider.write_send_request(sms, self._host.wall_s()),
                self._provider.read_send_reply,
                deadline,
            )
        except TooLateToSendError:
            return None

    def metric_code(self, code: str) -> str:
        """An outcome's code as a label of a metric: what the provider's documentation has, an HTTP status, the name of an
        exception of requests, or "other"."""
        known = (
            code in self._provider.known_codes
            or code in _REQUESTS_ERROR_NAMES
            or _HTTP_STATUS_CODE.fullmatch(code)
        )
        return code if known else "other"

    async def look_up(
        self, sms: OutboundSms, since: float, known: Container[str], answer_by_s: float
    ) -> SendOutcome | SmsNotFound:
        """Ask whether the provider has this SMS, first tried at `since` (seconds); `known` tickets are not its. The answer
        is waited for until `answer_by_s` (of the host's monotonic clock). Only if that is the provider's recourse."""
        lister = cast(LookupProvider, self._provider)

        def read_listing(status: int, body: bytes) -> SendOutcome | SmsNotFound:
            return lister.read_lookup_reply(sms, since, status, body, known)

        deadline = ExchangeDeadline(answer_by_s, answer_by_s)
        return await self._make_request(lister.write_lookup_request(sms, since), read_listing, deadline)

    async def ask_account(self, deadline: ExchangeDeadline) -> AccountAnswer | RetryLater:
        """Ask whether the provider knows the account. Only if it is an AccountProvider."""
        asker = cast(AccountProvider, self._provider)
        return await self._make_request(asker.write_account_request(), asker.read_account_reply, deadline)

    async def _make_request(
        self, request: ProviderRequest, read: Callable[[int, bytes], Reading], deadline: ExchangeDeadline
    ) -> Reading | RetryLater | OutcomeUnknown:
        try:
            return read(*await self._transport.exchange(request, deadline))
        except TooLateToSendError:
            raise
        except requests.exceptions.ContentDecodingError as e:
            log.warning("an answer of a provider is not read", why=str(e))
            return OutcomeUnknown(type(e).__name__, "Parley could not read the provider's answer")
        except requests.RequestException as e:
            if any(isinstance(cause, _NOT_SENT_ERRORS) for cause in _error_chain(e)):
                return RetryLater(type(e).__name__, "the provider cannot be reached")
            return OutcomeUnknown(type(e).__name__, "the provider gave no answer")
        except Exception as e:
            log.exception("an answer of a provider cannot be read")
            return OutcomeUnknown(type(e).__name__, "Parley could not read the provider's answer")


def _error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it says it stands for, by requests' nesting."""
    while True:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return
        error = inner
