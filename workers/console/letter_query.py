"""Which dead letters are meant, as an address says it: the filters of `parley dead list`. A person is meant by the address of their
page, as no address has a number."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import falcon
import msgspec

from engine.model.durations import compact_duration, parse_duration
from workers.console.person_address import PersonAddresses
from workers.dead_letters.filters import DeadLetterFilter, Likeness, likeness_of
from workers.dead_letters.groups import DeadLetterGroup

TEXT_FILTERS = ("queue", "reason", "channel", "survey", "hook", "error")
AGE_FILTERS = {"older": "older_ms", "newer": "newer_ms"}
_MAX_LENGTH = 200


class LetterQuery(msgspec.Struct, frozen=True):
    """The filter, and the address of the person that it names, if it names one."""

    wanted: DeadLetterFilter
    person: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """What a form or an address has of it; what is empty is left out."""
        texts = {name: getattr(self.wanted, name) for name in TEXT_FILTERS}
        ages = {name: _written_age(getattr(self.wanted, field)) for name, field in AGE_FILTERS.items()}
        alike = self.wanted.alike
        like = "" if alike is None else msgspec.json.encode(alike).decode()
        others = {"like": like, "person": self.person}
        return {name: value for name, value in (texts | ages | others).items() if value}

    @property
    def address(self) -> str:
        return urlencode(self.fields)

    @property
    def words(self) -> str:
        """The filter in words, without the person."""
        said = [f"{name} {value}" for name, value in self.fields.items() if name not in ("person", "like")]
        if self.wanted.alike is not None:
            said.append("all like: " + " ".join(filter(None, self.wanted.alike)))
        return ", ".join([*said, *(["of one person"] if self.person else [])]) or "all"


def query_of_group(group: DeadLetterGroup, beside: LetterQuery) -> LetterQuery:
    """Return which letters of `beside` are in the group. No number stands in its address."""
    alike = likeness_of(group.reason, group.code, group.why)
    return msgspec.structs.replace(beside, wanted=msgspec.structs.replace(beside.wanted, alike=alike))


def read_letter_query(params: Mapping[str, object], addresses: PersonAddresses) -> LetterQuery:
    """Read the filters of an address or a form. Raises HTTPBadRequest."""
    written: dict[str, Any] = {
        name: str(params.get(name) or "").strip()[:_MAX_LENGTH]
        for name in (*TEXT_FILTERS, *AGE_FILTERS, "person")
    }
    person, sender = written.pop("person"), ""
    if person:
        sender = addresses.number_at(person) or ""
        if not sender:
            raise falcon.HTTPBadRequest(title="This address leads to nobody")
    fields = {name: written[name] for name in TEXT_FILTERS}
    fields |= {field: _read_age(written[name]) for name, field in AGE_FILTERS.items()}
    return LetterQuery(
        DeadLetterFilter(**fields, sender=sender, alike=_read_likeness(str(params.get("like") or ""))), person
    )


def _read_likeness(written: str) -> Likeness | None:
    if not written:
        return None
    try:
        alike: Likeness = msgspec.json.decode(written, type=Likeness)
    except msgspec.MsgspecError as e:
        raise falcon.HTTPBadRequest(title="This address is not of this console") from e
    return alike


def _read_age(written: str) -> int:
    if not written:
        return 0
    ms = parse_duration(written)
    if not ms:
        raise falcon.HTTPBadRequest(
            title=f"{written!r} is no length of time", description="Write one such as 30s, 10m, 2h or 1d12h."
        )
    return ms


def _written_age(ms: int) -> str:
    return compact_duration(ms) if ms else ""
