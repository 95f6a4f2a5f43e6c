"""Parses invitations: a body as Puzzel's SendSurvey has it, field by field, so that every wrong field is reported.

Parsing does no I/O. A session id is the hash of the channel and the inviter's reference, so the same reference is the
same session however often it is posted; without a reference it is random.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from config.host import THIS_HOST, Host
from config.invitations.invitation_body import SMS_CHANNEL, Body, Variable, VariableValue
from config.invitations.line_result import FieldError
from config.settings.channels import SIMULATOR, ApiKey, Channel
from config.settings.settings import Settings
from config.store import keyspace
from engine.model.errors import ParleyError
from engine.model.events import Invitation, RefusalReason, derive_session_id
from engine.model.field_reader import FieldProblem, read_fields
from engine.model.quiet_hours import next_time_of_day
from engine.model.suggestions import expected_instead
from engine.surveys.program import Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.variables import KEY_PATTERN, answer_key
from ingest.api.problems import in_plain_words, json_pointer
from ingest.api.textable_numbers import UntextableNumberError, textable_number

MAX_VARIABLES = 100
MAX_UNKNOWN_FIELDS = 10
"""Fields that do not exist and are told: guessing what each was meant to be takes its time, and all others wait."""

MAX_VALUE_LENGTH = 1_000
DAY_MS = 86_400_000
SEND_AT_GRACE_MS = DAY_MS
"""How long ago the moment may be at which an invitation is to be sent: then it is sent at once. One that is longer past is
a mistake, such as last year's date."""

YEAR_MS = 366 * DAY_MS

TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
"""As `sendAt`: it is then where the person is."""


class InvitationRequest(msgspec.Struct, frozen=True):
    """An invitation that may be accepted. Times are ms; `known_until` is how long its reference is remembered.

    `late_errors` are what is wrong with it by now, if it was not accepted earlier. `refusal` is why it opens nothing, if that is
    known already: then it is recorded, and not held.
    """

    sender: str
    event: Invitation
    not_before: int
    known_until: int
    fingerprint: str
    late_errors: Sequence[FieldError] = ()
    refusal: RefusalReason | None = None


class InvitationRejectedError(ParleyError):
    """An invitation that is not accepted, and all that is wrong with it. `reference` is the inviter's, as far as it can be
    read."""

    def __init__(
        self, status: HTTPStatus, title: str, errors: Sequence[FieldError], reference: str = ""
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.errors = errors
        self.reference = reference


class InvitationParser:
    """Reads invitations to the surveys of a deployment, as they stand."""

    def __init__(self, settings: Settings, surveys: SurveyRegistry, host: Host = THIS_HOST) -> None:
        self._host = host
        self._surveys = surveys
        self._channels = settings.channels
        self._keep_ms = settings.longest_stream_ms
        self._own_numbers = {channel.number for channel in settings.channels.values()} | {
            number for channel in settings.channels.values() for number in channel.originators
        }

    def offered_survey(self, name: str) -> Survey | None:
        """The survey of this name, if a channel offers it."""
        offered = any(name in channel.surveys for channel in self._channels.values())
        return self._surveys.current(name) if offered else None

    def parse(self, body: bytes, survey: Survey, key: ApiKey) -> InvitationRequest:
        """The invitation in a body, which is accepted now. Raises InvitationRejectedError."""
        wrong: list[FieldError] = []
        written = _decode_body(body, wrong)
        reference = written.client_reference if written is not None else ""
        try:
            asked = self._build_request(written, survey, key, wrong) if written is not None else None
        except InvitationRejectedError as e:
            e.reference = reference
            raise
        if asked is None or wrong:
            raise InvitationRejectedError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "the invitation cannot be accepted", wrong, reference
            )
        return asked

    def _build_request(
        self, written: Body, survey: Survey, key: ApiKey, wrong: list[FieldError]
    ) -> InvitationRequest | None:
        now = self._host.wall_ms()
        channel = self._resolve_channel(written, survey, key, wrong)
        expires_at, late = _parse_expiry(written.expiry_time, now, wrong)
        time_of_day = TIME_OF_DAY.fullmatch(written.send_at)
        send_at, too_late = (
            (0, []) if time_of_day else _parse_send_at(written.send_at, expires_at, now, wrong)
        )
        language = _resolve_language(written.language, survey, wrong)
        variables = _parse_variables(written.user_session_variables, wrong)
        if channel is None:
            return None
        told = any(error.pointer == json_pointer("identifier") for error in wrong)
        sender = "" if told else self._resolve_sender(written.identifier, channel, wrong)
        _check_originator(written.originator, channel, wrong)
        if wrong:
            return None
        if time_of_day:
            minute = int(time_of_day[1]) * 60 + int(time_of_day[2])
            send_at = next_time_of_day(sender, minute, now, channel.timezone)
            too_late = [EXPIRED_BY_THEN] if 0 < expires_at <= send_at else []
        event = Invitation(
            id=self._new_session_id(channel, written.client_reference),
            channel=channel.name,
            survey=survey.name,
            language=language,
            content=written.content,
            variables=variables,
            expires_at=expires_at,
            reference=written.client_reference,
            originator=written.originator,
            campaign=written.campaign,
            asked_at=now,
            not_before=send_at,
        )
        due = max(now, send_at)
        not_before = channel.quiet.next_awake_at(sender, due, channel.timezone) if channel.quiet else due
        known_until = max(expires_at, due + keyspace.MAX_HELD_MS) + self._keep_ms
        fingerprint = _content_fingerprint(sender, event, written.send_at if time_of_day else send_at)
        return InvitationRequest(sender, event, not_before, known_until, fingerprint, [*late, *too_late])

    def _new_session_id(self, channel: Channel, reference: str) -> str:
        return derive_session_id(channel.name, reference) if reference else self._host.token_hex(8)

    def _resolve_channel(
        self, written: Body, survey: Survey, key: ApiKey, wrong: list[FieldError]
    ) -> Channel | None:
        name = written.channel
        allowed = [name for name in self._channels if name in key.channels]
        if name not in self._channels and name in (SMS_CHANNEL, ""):
            offering = [each for each in allowed if survey.name in self._channels[each].surveys]
            if len(offering) == 1:
                return self._channels[offering[0]]
            _add_error(wrong, "channel", f"expected the name of one: {_join_with_or(offering or allowed)}")
            return None
        if name not in self._channels:
            _add_error(
                wrong,
                "channel",
                f"no such channel{expected_instead(name, allowed, joined_by=' or ')}",
            )
            return None
        if name not in key.channels:
            why = FieldError(
                json_pointer("channel"), f"this key may not use it: expected {_join_with_or(allowed)}"
            )
            raise InvitationRejectedError(
                HTTPStatus.FORBIDDEN, "the key is not for this channel", [*wrong, why]
            )
        channel = self._channels[name]
        if survey.name not in channel.surveys:
            _add_error(
                wrong,
                "channel",
                f"it does not offer {survey.name}: it offers {_join_with_or(channel.surveys)}",
            )
            return None
        return channel

    def _resolve_sender(self, identifier: str, channel: Channel, wrong: list[FieldError]) -> str:
        try:
            sender = textable_number(identifier, simulated=channel.provider == SIMULATOR)
        except UntextableNumberError as e:
            _add_error(wrong, "identifier", str(e))
            return ""
        if sender in self._own_numbers:
            _add_error(wrong, "identifier", "this is a number of ours: expected a person's")
        return sender


_BODY_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(Body)}
_decode_whole_body = msgspec.json.Decoder(Body).decode


def _decode_body(body: bytes, wrong: list[FieldError]) -> Body | None:
    """The body; one with mistakes too, as far as it can be read, so that all of them are found."""
    try:
        return _decode_whole_body(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        wrong.append(FieldError("", f"not JSON: {e}"))
        return None
    if not isinstance(raw, dict):
        wrong.append(FieldError("", "expected an object"))
        return None
    return _decode_fields(raw, wrong)


def _decode_fields(raw: Mapping[str, Any], wrong: list[FieldError]) -> Body:
    """Read the body field by field; report each wrong one, and leave it out."""
    for name in islice((name for name in raw if name not in _BODY_FIELDS), MAX_UNKNOWN_FIELDS):
        _add_error(wrong, name, f"no such field{expected_instead(name, _BODY_FIELDS)}")
    values, problems = read_fields(_BODY_FIELDS.values(), raw)
    wrong += map(_field_error, problems)
    return Body(**({"identifier": ""} | values))


def _field_error(problem: FieldProblem) -> FieldError:
    """Convert a problem; a place within the field goes into the pointer."""
    within = problem.path.replace("[...]", "").replace("[", ".").replace("]", "")
    parts = [part for part in within.split(".") if part]
    why = in_plain_words(problem.sentence, _choices_of(problem.field.type)) or "it is missing"
    return FieldError(json_pointer(problem.field.encode_name, *parts), why)


def _choices_of(kind: Any) -> tuple[str, ...]:
    """The values of a field that has a few."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(bare) if get_origin(bare) is Literal else ()


def _parse_expiry(written: str, now: int, wrong: list[FieldError]) -> tuple[int, list[FieldError]]:
    """Return the moment (ms; 0: none) and the errors that hold only for an invitation that was not accepted earlier: one
    accepted in time may be posted again after it."""
    expires_at = _parse_moment("expiryTime", written, wrong)
    if expires_at > now + YEAR_MS:
        _add_error(wrong, "expiryTime", "expected a moment within a year")
    if expires_at and expires_at <= now:
        return expires_at, [FieldError(json_pointer("expiryTime"), "it is past: expected a moment to come")]
    return expires_at, []


EXPIRED_BY_THEN = FieldError(
    json_pointer("sendAt"), "it is expired by then: expected a moment before its expiryTime"
)


def _parse_send_at(
    written: str, expires_at: int, now: int, wrong: list[FieldError]
) -> tuple[int, list[FieldError]]:
    """As _parse_expiry, of the moment before which nothing is sent."""
    send_at = _parse_moment("sendAt", written, wrong, ", or a time where the person is, such as 09:00")
    if send_at > now + keyspace.MAX_HELD_MS:
        _add_error(wrong, "sendAt", "expected a moment within 30 days")
    if send_at and 0 < expires_at <= send_at:
        wrong.append(EXPIRED_BY_THEN)
    if send_at and send_at <= now - SEND_AT_GRACE_MS:
        return send_at, [
            FieldError(json_pointer("sendAt"), "it is more than a day ago: expected a moment to come")
        ]
    return send_at, []


def _parse_moment(field: str, written: str, wrong: list[FieldError], or_else: str = "") -> int:
    """Return the moment (ms; 0: none) that is written, and report what is none; `or_else` is what else may stand there."""
    if not written:
        return 0
    try:
        moment = msgspec.convert(written, datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _add_error(wrong, field, f"expected RFC 3339 with a zone, such as 2026-12-01T18:00:00+01:00{or_else}")
        return 0
    return round(moment.timestamp() * 1000)


def _resolve_language(written: str, survey: Survey, wrong: list[FieldError]) -> str:
    """The survey's language that is wanted: `en` for `en-GB` too. Empty: whatever comes first there."""
    if not written:
        return ""
    spoken = {language.lower(): language for language in survey.languages}
    wanted = written.lower().replace("_", "-")
    found = spoken.get(wanted) or spoken.get(wanted.partition("-")[0])
    if found is None:
        _add_error(
            wrong, "language", f"the survey does not speak it: expected {_join_with_or(survey.languages)}"
        )
        return ""
    return found


def _parse_variables(
    written: list[Variable] | dict[str, VariableValue], wrong: list[FieldError]
) -> dict[str, str]:
    """By key, as written; two keys that differ in case are one."""
    if isinstance(written, dict):
        pairs = [(key, value, json_pointer("userSessionVariables", key)) for key, value in written.items()]
    else:
        pairs = [
            (each.key, each.value, json_pointer("userSessionVariables", place))
            for place, each in enumerate(written)
        ]
    if len(pairs) > MAX_VARIABLES:
        _add_error(wrong, "userSessionVariables", f"expected {MAX_VARIABLES} at the most")
        return {}
    variables: dict[str, str] = {}
    taken: set[str] = set()
    for key, value, place in pairs:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if len(key) > 64 or not KEY_PATTERN.fullmatch(key):
            wrong.append(
                FieldError(place, "expected a key of letters, digits, - and _, not beginning with a digit")
            )
        elif answer_key(key) in taken:
            wrong.append(FieldError(place, "this key is there already; keys are alike in any case"))
        elif len(text) > MAX_VALUE_LENGTH:
            wrong.append(FieldError(place, f"expected a value of {MAX_VALUE_LENGTH} characters at the most"))
        taken.add(answer_key(key))
        variables[key] = text
    return variables


def _check_originator(written: str, channel: Channel, wrong: list[FieldError]) -> None:
    if written and written not in channel.originators:
        known = (
            f"expected {_join_with_or(channel.originators)}"
            if channel.originators
            else "the channel has none"
        )
        _add_error(wrong, "originator", f"no such sub-number: {known}")


def _content_fingerprint(sender: str, event: Invitation, send_at: int | str) -> str:
    """Equal for equal content. The order of variables is none of it, nor when it was accepted, so `send_at` is the moment
    (ms) or the time of the day as it was asked for. Of an invitation that says nothing which 0.1.0 did not know it is as
    0.1.0 made it, so that one of then may be posted again."""
    content: tuple[object, ...] = (
        sender, event.survey, event.language, event.content, sorted(event.variables.items()),
        event.expires_at, event.originator,
    )  # fmt: skip
    if event.campaign or send_at:
        content += (event.campaign, send_at)
    return blake2b(msgspec.msgpack.encode(content), digest_size=12).hexdigest()


def _add_error(wrong: list[FieldError], field: str, detail: str) -> None:
    wrong.append(FieldError(json_pointer(field), detail))


def _join_with_or(names: Iterable[str]) -> str:
    listed = list(names)
    return " or ".join(listed) if listed else "it has none"


def utc_datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
