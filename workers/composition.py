"""Puts together what works on a deployment: one function for each kind of work, which workers and commands share."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from config.settings.channels import channel_policies
from config.settings.settings import Settings
from config.store.counts.answer_record import AnswerNotes
from engine.providers import Recourse, UnusableChannelError
from engine.providers.provider_registry import open_provider
from workers.clock.alarm_clock import AlarmClock
from workers.clock.invitation_pacer import InvitationPacer
from workers.dead_letters.replay import DeadLetterReplayer
from workers.dead_letters.replay_decision import ReplayOption
from workers.store.deployment import Deployment
from workers.turns.turns import TurnRunner

if TYPE_CHECKING:
    from config.telemetry.supervision import LoopRounds
    from workers.sending.delivery import DeliveryRunner
    from workers.sending.http_client import ProviderClient
    from workers.sending.send_steps import SendSteps


def build_turn_runner(deployment: Deployment) -> TurnRunner:
    """Build what both the rate-limit and the conversation worker run, which knows of a step of the server's clock from now
    on. Raises ConfigError if the list of opt-outs has another key than the settings'."""
    lanes = deployment.lane_store(deployment.open_opt_out_list())
    lanes.look_at_clock()
    return TurnRunner(
        lanes,
        deployment.surveys,
        deployment.settings.channels,
        deployment.channel_store(),
        deployment.wakeup_broker(),
        deployment.open_log_key(),
        deployment.host,
    )


def build_answer_notes(deployment: Deployment) -> AnswerNotes:
    return AnswerNotes({name: channel.timezone for name, channel in deployment.settings.channels.items()})


def build_send_steps(
    deployment: Deployment, clients: "Mapping[str, ProviderClient]", notes: AnswerNotes
) -> "SendSteps":
    """Build what every delivery worker does. `clients` are those of the channels' providers, by channel; `notes` is told of what
    they take."""
    from workers.sending.send_steps import SendSteps  # noqa: PLC0415 (requests takes 5 MB)

    return SendSteps(
        deployment.outbox_store(),
        deployment.channel_store(),
        clients,
        deployment.wakeup_broker(),
        deployment.open_log_key(),
        notes,
        deployment.host,
    )


def build_delivery_runner(
    deployment: Deployment, notes: AnswerNotes, rounds: "LoopRounds"
) -> "DeliveryRunner":
    from workers.sending.delivery import DeliveryRunner  # noqa: PLC0415 (as above)
    from workers.sending.http_client import ProviderClient  # noqa: PLC0415 (as above)

    settings = deployment.settings
    clients = {
        name: ProviderClient(open_provider(settings.provider_settings(name)), host=deployment.host)
        for name in settings.channels
    }
    steps = build_send_steps(deployment, clients, notes)
    return DeliveryRunner(steps, deployment.wakeup_broker(), rounds, deployment.host)


def build_alarm_clock(deployment: Deployment) -> AlarmClock:
    return AlarmClock(
        deployment.lanes,
        deployment.shard_groups(),
        deployment.wakeup_broker(),
        deployment.outbox_store(),
        deployment.host,
    )


def build_invitation_pacer(deployment: Deployment) -> InvitationPacer:
    settings = deployment.settings
    return InvitationPacer(
        deployment.lanes,
        deployment.broker,
        settings.channels,
        deployment.surveys,
        deployment.channel_store(),
        deployment.wakeup_broker(),
        shard_groups=deployment.shard_groups(),
        host=deployment.host,
    )


def build_dead_letter_replayer(
    deployment: Deployment, operator: str, options: Collection[ReplayOption]
) -> DeadLetterReplayer:
    """Build what replays dead letters as this deployment's workers would. Raises ConfigError if the list of
    opt-outs has another key than the settings'."""
    settings, optouts = deployment.settings, deployment.open_opt_out_list()
    return DeadLetterReplayer(
        deployment.lane_store(optouts),
        optouts,
        deployment.surveys,
        channel_policies(settings.channels),
        deployment.channel_store(),
        deployment.wakeup_broker(),
        _recourses_by_channel(settings),
        settings.shards,
        by=operator,
        options=options,
        host=deployment.host,
    )


def _recourses_by_channel(settings: Settings) -> dict[str, Recourse]:
    """Each channel's recourse for an SMS that its provider may have; `none` if the provider cannot be opened."""
    found: dict[str, Recourse] = {}
    for name in settings.channels:
        try:
            found[name] = open_provider(settings.provider_settings(name)).recourse
        except UnusableChannelError:
            found[name] = "none"
    return found
