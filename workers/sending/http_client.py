"""HTTP to one provider: a request is made once, and every way in which it may end is an outcome.

A request of which no byte left has carried nothing; whatever else goes wrong, the provider may have the SMS.
"""

import re
from collections.abc import Callable, Container, Iterator
from typing import Any, TypeVar, cast

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
from workers.sending.deadline_transport import (
    DeadlineTransport,
    ExchangeDeadline,
    NothingSentError,
    TooLateToSendError,
)

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


class ProviderClient:
    """Kept-alive connections to a provider; proxies and CA bundle of the environment are looked up once. `close` ends them.
    `transport` is any adapter of requests that takes an ExchangeDeadline for its `timeout`."""

    def __init__(
        self,
        provider: Provider,
        transport: requests.adapters.BaseAdapter | None = None,
        host: Host = THIS_HOST,
    ) -> None:
        self.recourse = provider.recourse
        self._provider = provider
        self._host = host
        self._transport = transport or DeadlineTransport()
        self._options: Any = requests.Session().merge_environment_settings(provider.url, {}, None, None, None)
        self._post_templates: dict[str, requests.PreparedRequest] = {}

    def close(self) -> None:
        self._transport.close()

    def send(self, sms: OutboundSms, deadline: ExchangeDeadline) -> SendOutcome | None:
        """Try once. None: its time was over before the first byte could leave, and nothing was sent."""
        try:
            return self._make_request(
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

    def look_up(
        self, sms: OutboundSms, since: float, known: Container[str], answer_by_s: float
    ) -> SendOutcome | SmsNotFound:
        """Ask whether the provider has this SMS, first tried at `since` (seconds); `known` tickets are not its. The answer
        is waited for until `answer_by_s` (of the host's monotonic clock). Only if that is the provider's recourse."""
        lister = cast(LookupProvider, self._provider)

        def read_listing(status: int, body: bytes) -> SendOutcome | SmsNotFound:
            return lister.read_lookup_reply(sms, since, status, body, known)

        deadline = ExchangeDeadline(answer_by_s, answer_by_s)
        return self._make_request(lister.write_lookup_request(sms, since), read_listing, deadline)

    def ask_account(self, deadline: ExchangeDeadline) -> AccountAnswer | RetryLater:
        """Ask whether the provider knows the account. Only if it is an AccountProvider."""
        asker = cast(AccountProvider, self._provider)
        return self._make_request(asker.write_account_request(), asker.read_account_reply, deadline)

    def _make_request(
        self, request: ProviderRequest, read: Callable[[int, bytes], Reading], deadline: ExchangeDeadline
    ) -> Reading | RetryLater | OutcomeUnknown:
        timeout: Any = deadline  # an adapter says of its timeout what it may be
        try:
            reply = self._transport.send(self._prepare_request(request), timeout=timeout, **self._options)
            return read(reply.status_code, reply.content)
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

    def _prepare_request(self, request: ProviderRequest) -> requests.PreparedRequest:
        """The request. A POST is made from one for the same URL: preparing it anew costs as much as sending it."""
        if not request.body:
            return requests.Request("GET", request.url, headers=request.headers).prepare()
        blank = self._post_templates.get(request.url)
        if blank is None:
            blank = self._post_templates[request.url] = requests.Request("POST", request.url).prepare()
        prepared = blank.copy()
        prepared.headers.update(request.headers)
        prepared.prepare_body(request.body, None)
        return prepared


def _error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it says it stands for, by requests' nesting."""
    while True:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return
        error = inner
