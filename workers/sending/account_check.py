"""Does each provider know the account that the settings have with it? It is asked, once; nothing is sent to anybody."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, assert_never

from config.host import Host
from config.settings.channels import SIMULATOR
from config.settings.settings import Settings
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS, EXIT_UNUSABLE
from engine.providers import (
    AccountAnswer,
    AccountProvider,
    AccountState,
    ChannelFault,
    OutcomeUnknown,
    RetryLater,
)
from engine.providers.provider_registry import open_provider
from workers.sending.http_client import ProviderClient, try_deadline


class AccountFinding(NamedTuple):
    """A sentence for an operator, and the exit status of a command that has nothing worse to tell: EXIT_UNUSABLE where keys
    are wrong, EXIT_PROBLEMS where nobody knows."""

    sentence: str
    status: int


def check_accounts(settings: Settings, host: Host) -> Iterator[AccountFinding]:
    """Ask each provider that channels have, once, as an account is one for all channels of it."""
    channels = {channel.provider: channel.name for channel in settings.channels.values()}
    for name, channel in sorted(channels.items()):
        provider = open_provider(settings.provider_settings(channel))
        if name == SIMULATOR:
            yield AccountFinding("simulator: there is no account to ask for", EXIT_OK)
        elif not isinstance(provider, AccountProvider):
            yield AccountFinding(
                f"{name}: its API has nothing to ask for, so whether its secret is right is not known",
                EXIT_OK,
            )
        else:
            yield _finding(name, asyncio.run(_ask(provider, host)))


async def _ask(provider: AccountProvider, host: Host) -> AccountAnswer | RetryLater:
    client = ProviderClient(provider, host=host)
    try:
        return await client.ask_account(try_deadline(host.monotonic_s()))
    finally:
        client.close()


def _finding(provider: str, answer: AccountAnswer | RetryLater) -> AccountFinding:
    match answer:
        case AccountState(credit, unit):
            left = "" if credit is None else f", and {credit:,.2f} {unit} are left"
            return AccountFinding(f"{provider}: the keys are right{left}", EXIT_OK)
        case ChannelFault(code, why):
            return AccountFinding(f"{provider}: the account cannot be used ({code}: {why})", EXIT_UNUSABLE)
        case RetryLater(code, why) | OutcomeUnknown(code, why):
            return AccountFinding(f"{provider}: not known ({code}: {why})", EXIT_PROBLEMS)
        case _:
            assert_never(answer)
