"""HTTP to one provider: a request is made once, and every way in which it may end is an outcome.

A connection that never came about has carried nothing; whatever else goes wrong, the provider may have the SMS.
"""

import re
from collections.abc import Callable, Container, Iterator
from ssl import SSLCertVerificationError
from time import time
from typing import Any, TypeVar, cast

import requests
import structlog
import urllib3.exceptions

from engine.model.events import OutboundSms
from engine.providers import (
    LookupProvider,
    OutcomeUnknown,
    Provider,
    ProviderRequest,
    RetryLater,
    SendOutcome,
    SmsNotFound,
)

log = structlog.get_logger()

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 6.0

_NOT_SENT_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    SSLCertVerificationError,
)

_HTTP_STATUS_CODE = re.compile(r"http [1-5][0-9][0-9]")
_REQUESTS_ERROR_NAMES = frozenset(
    name for name, it in vars(requests.exceptions).items() if isinstance(it, type)
)

Reading = TypeVar("Reading")


class ProviderClient:
    """Kept-alive connections to a provider; proxies and CA bundle of the environment are looked up once."""

    def __init__(self, provider: Provider, slots: int) -> None:
        self.recourse = provider.recourse
        self._provider = provider
        self._adapter = requests.adapters.HTTPAdapter(pool_maxsize=slots)
        self._options: Any = requests.Session().merge_environment_settings(provider.url, {}, None, None, None)
        self._post_templates: dict[str, requests.PreparedRequest] = {}

    def send(self, sms: OutboundSms) -> SendOutcome:
        """Try once."""
        return self._make_request(
            self._provider.write_send_request(sms, time()), self._provider.read_send_reply
        )

    def metric_code(self, code: str) -> str:
        """An outcome's code as a label of a metric: what the provider's documentation has, an HTTP status, the name of an
        exception of requests, or "other"."""
        known = (
            code in self._provider.known_codes
            or code in _REQUESTS_ERROR_NAMES
            or _HTTP_STATUS_CODE.fullmatch(code)
        )
        return code if known else "other"

    def look_up(self, sms: OutboundSms, since: float, known: Container[str]) -> SendOutcome | SmsNotFound:
        """Ask whether the provider has this SMS, first tried at `since` (seconds); `known` tickets are not its. Only if
        that is its recourse."""
        lister = cast(LookupProvider, self._provider)

        def read_listing(status: int, body: bytes) -> SendOutcome | SmsNotFound:
            return lister.read_lookup_reply(sms, since, status, body, known)

        return self._make_request(lister.write_lookup_request(sms, since), read_listing)

    def _make_request(
        self, request: ProviderRequest, read: Callable[[int, bytes], Reading]
    ) -> Reading | RetryLater | OutcomeUnknown:
        try:
            reply = self._adapter.send(
                self._prepare_request(request), timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), **self._options
            )
            return read(reply.status_code, reply.content)
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
    """The error, and those that it says it stands for, by requests' and urllib3's nesting."""
    while True:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            return
        error = inner
