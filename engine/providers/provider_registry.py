"""Which provider has a channel, and can it work as the channel is configured?

A provider is a module of this folder, named in PROVIDER_MODULES and loaded when a channel first needs it. It has

- `Account`, a Struct whose fields are read from the environment: PARLEY_<NAME>_<FIELD>;
- `Options`, a Struct whose fields are those of [channels.<channel>] that only this provider knows;
- `make_provider(channel, account, options)`, which makes the Provider of one channel or raises UnusableChannelError.

Every field has a description. A field without a default must be set. Nothing that came from the environment is ever
shown.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar, cast, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from engine.model.field_reader import FieldProblem, read_fields
from engine.model.suggestions import expected_instead
from engine.providers import Provider, ProviderChannel, UnusableChannelError

PROVIDER_MODULES: Mapping[str, str] = {
    "octopush": "engine.providers.octopush",
    "simulator": "engine.providers.octopush",
    "twilio": "engine.providers.twilio",
    "vonage": "engine.providers.vonage",
    "webhook": "engine.providers.webhook",
}
"""Name -> module. The simulator speaks as Octopush does, so that a trial runs what production runs."""

_WITHOUT_ACCOUNT = ("simulator",)
"""Their accounts are with ourselves, and nobody configures them."""


REPORTED_STAND_IN = "x" * 64
"""Stands in for a setting whose error has been reported, so that the remaining settings can still be checked."""


class ProviderSettings(msgspec.Struct, frozen=True):
    """What the settings say to the provider of one channel. `account` has the variables PARLEY_<PROVIDER>_<FIELD> by
    field; `options` are what [channels.<channel>] says beyond `channel_fields`, which every channel may have; `secrets`
    are the variables that its fields `x_env` name, by `x`.
    """

    provider: str
    channel: ProviderChannel
    account: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    secrets: Mapping[str, str] = {}
    channel_fields: Sequence[str] = ()


class _ProviderModule(Protocol):
    """The functions and types that a module in PROVIDER_MODULES has."""

    Account: type[msgspec.Struct]
    Options: type[msgspec.Struct]
    make_provider: Callable[[ProviderChannel, Any, Any], Provider]


class SettingField(NamedTuple):
    """A setting of a provider, for a reader: the variable or key, its default ("" if it must be set), what it is."""

    name: str
    default: str
    meaning: str


def open_provider(settings: ProviderSettings) -> Provider:
    """Make the provider of a channel. Raises UnusableChannelError if there are mistakes in its settings."""
    found: list[str] = []
    name = settings.channel.channel
    provider = _open_or_report(settings, f"channels.{name}", name, found)
    if provider is None:
        raise UnusableChannelError(*found)
    return provider


def provider_mistakes(
    channels: Iterable[ProviderSettings], file: str, unset: list[str] | None = None
) -> list[str]:
    """Return what providers find wrong with the settings of `channels`, which stand in `file`: a line each, no two
    alike. What is not set of an account is added to `unset` instead, if it is there."""
    found: list[str] = []
    first_channels: dict[str, str] = {}
    for each in channels:
        name = each.channel.channel
        first = first_channels.setdefault(each.provider, name)
        _open_or_report(each, f"{file}: channels.{name}", first, found, unset)
    if unset is not None:
        unset[:] = dict.fromkeys(unset)
    return list(dict.fromkeys(found))


def provider_warnings(settings: ProviderSettings) -> tuple[str, ...]:
    """Return what an operator should know of a channel's settings though they are no mistake."""
    return open_provider(settings).settings_warnings


def mention_required(settings: ProviderSettings) -> str:
    """Return the word without which the channel's provider refuses a text; empty if it takes any."""
    return open_provider(settings).required_mention


def account_setting_fields() -> list[SettingField]:
    """The environment variables of all providers' accounts."""
    return [
        SettingField(
            _account_variable(name, field.name), _default_text(field), _field_meta(field).description
        )
        for name, module in PROVIDER_MODULES.items()
        if name not in _WITHOUT_ACCOUNT
        for field in msgspec.structs.fields(_load_module(module).Account)
    ]


def option_setting_fields(provider: str) -> list[SettingField]:
    """What a channel of this provider may say in parley.toml beside what every channel may."""
    return [
        SettingField(_option_key(field), _default_text(field), _field_meta(field).description)
        for field in msgspec.structs.fields(_load_module(PROVIDER_MODULES[provider]).Options)
    ]


def _open_or_report(
    settings: ProviderSettings,
    where: str,
    first_channel: str,
    found: list[str],
    unset: list[str] | None = None,
) -> Provider | None:
    """Make the provider, or add everything that is in its way to `found`. `first_channel` is one that has this
    provider, for what is said of the account."""
    before = len(found)
    found += [f"{where}.{problem}" for problem in _unused_keys(settings)]
    name = settings.provider
    if name not in PROVIDER_MODULES:
        found.append(f"{where}.provider is {name!r}{expected_instead(name, PROVIDER_MODULES)}")
        return None
    module = _load_module(PROVIDER_MODULES[name])
    account = _read_account(module.Account, settings, first_channel, found, found if unset is None else unset)
    options = _read_options(module.Options, settings, where, found)
    try:
        provider = module.make_provider(settings.channel, account, options)
    except UnusableChannelError as unusable:
        found += [f"{where}: {problem}" for problem in unusable.problems]
        return None
    return provider if len(found) == before else None


@cache
def _load_module(name: str) -> _ProviderModule:
    return cast(_ProviderModule, import_module(name))


SettingStruct = TypeVar("SettingStruct", bound=msgspec.Struct)


def _read_account(
    shape: type[SettingStruct],
    settings: ProviderSettings,
    first_channel: str,
    found: list[str],
    unset: list[str],
) -> SettingStruct:
    """Read the account with a provider from the environment's texts."""
    read, problems = read_fields(msgspec.structs.fields(shape), {}, texts=settings.account)
    for wrong in problems:
        read |= _stand_in(wrong.field)
        variable = _account_variable(settings.provider, wrong.field.name)
        if wrong.sentence:
            found.append(f"{variable}: {_expected_sentence(wrong)}")
        else:
            unset.append(
                f"{variable} is not set: expected it, "
                f"as channel {first_channel} has the provider {settings.provider}"
            )
    return shape(**read)


def _read_options(
    shape: type[SettingStruct], settings: ProviderSettings, where: str, found: list[str]
) -> SettingStruct:
    """Read the channel's options. Those that are secret come from the environment, and others may."""
    fields = msgspec.structs.fields(shape)
    secret = [field.name for field in fields if _field_meta(field).secret]
    written = {name: value for name, value in settings.options.items() if name not in secret}
    read, problems = read_fields(fields, written, texts=settings.secrets)
    for wrong in problems:
        read |= _stand_in(wrong.field)
        found.append(f"{where}.{_option_problem(wrong, settings)}")
    return shape(**read)


def _option_problem(wrong: FieldProblem, settings: ProviderSettings) -> str:
    name, meta = wrong.field.name, _field_meta(wrong.field)
    if not wrong.sentence:
        holds = "the name of a variable that holds " if meta.secret else ""
        return f"{_option_key(wrong.field)} is missing: expected {holds}{meta.description}"
    if name in settings.secrets:
        return f"{name}_env: in its variable: {_expected_sentence(wrong)}"
    return f"{name} is {settings.options[name]!r}: {_expected_sentence(wrong)}"


def _stand_in(field: FieldInfo) -> dict[str, str]:
    """REPORTED_STAND_IN for a text, and for what has no default; else its default stands."""
    return {field.name: REPORTED_STAND_IN} if field.required or get_args(field.type)[:1] == (str,) else {}


def _unused_keys(channel: ProviderSettings) -> Iterator[str]:
    """Yield an error for each key of the channel that no provider option or channel field reads. Values are never
    shown: they may be secrets in the wrong place."""
    fields = _options_by_name(channel.provider)
    known = [*channel.channel_fields, *map(_option_key, fields.values())]
    for name in (*channel.options, *(f"{secret}_env" for secret in channel.secrets)):
        if name.removesuffix("_env") not in fields:
            elsewhere = _belongs_elsewhere(name.removesuffix("_env"))
            yield f"{name} is {elsewhere or 'unknown' + expected_instead(name, known)}"
    for name in channel.options:
        if name in fields and _field_meta(fields[name]).secret:
            yield f"{name}: expected {name}_env instead, which names the variable that holds it"
        elif name in channel.secrets:
            yield f"{name} is there beside {name}_env: expected one of the two"


def _options_by_name(provider: str) -> dict[str, FieldInfo]:
    """A provider's own options; of a provider that does not exist, those of all: one of them was meant."""
    modules = [PROVIDER_MODULES[provider]] if provider in PROVIDER_MODULES else PROVIDER_MODULES.values()
    return {
        field.name: field
        for module in modules
        for field in msgspec.structs.fields(_load_module(module).Options)
    }


def _belongs_elsewhere(name: str) -> str:
    """Another provider that has this option."""
    owners = [provider for provider in PROVIDER_MODULES if name in _options_by_name(provider)]
    return f"for the provider {owners[0]} only: take it out" if owners else ""


class _FieldMeta(NamedTuple):
    """What a field's annotations say of it, the outermost first."""

    description: str
    expected: str
    secret: bool


def _field_meta(field: FieldInfo) -> _FieldMeta:
    said = [each for each in reversed(get_args(field.type)[1:]) if isinstance(each, Meta)]
    extra: dict[str, Any] = {}
    for each in reversed(said):
        extra |= each.extra or {}
    description = next((each.description for each in said if each.description), "")
    return _FieldMeta(description, extra.get("expected", ""), extra.get("secret", False))


def _expected_sentence(wrong: FieldProblem) -> str:
    """The field's own sentence, or one that says nothing of the value."""
    words = get_args(next(iter(get_args(wrong.field.type)), None))
    if expected := _field_meta(wrong.field).expected or " or ".join(
        word for word in words if isinstance(word, str)
    ):
        return f"expected {expected}"
    return wrong.sentence


def _account_variable(provider: str, field: str) -> str:
    return f"PARLEY_{provider.upper()}_{field.upper()}"


def _option_key(field: FieldInfo) -> str:
    return f"{field.name}_env" if _field_meta(field).secret else field.name


def _default_text(field: FieldInfo) -> str:
    if field.required or field.default in ("", None, msgspec.NODEFAULT):
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
