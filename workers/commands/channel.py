"""`parley channel`: what channels may do now; one is paused, and resumed, and what is left of a removed one is ended."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing

import click
import msgspec
from rich.text import Text

from config.service.channel_leftovers import ChannelLeftovers, leftover_sentences, leftovers_clause
from config.service.deployment_health import server_failure
from config.service.pause_wording import pause_cause_and_reason
from config.settings.config_errors import unknown_name_problem
from config.settings.settings import Settings
from config.store.channel_readings import ActivePause
from config.telemetry.redis_stats import ChannelStats, StatsReader
from engine.commands.json_output import print_json
from engine.commands.terminal import NARROW_WIDTH, open_console, require_confirmation, simple_table
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time
from workers.commands.cli_options import DurationParam, operator_option
from workers.commands.connect import (
    confirm_replicated,
    connect_both,
    connect_lanes,
    find_readable_shards,
)
from workers.store.channel_contents import (
    close_channel,
    count_leftovers,
    count_waiting_sms,
)


@click.group()
def channel() -> None:
    """What channels may do now; pause one, and resume it; end a removed one.

    \b
    Example:
      parley channel list
      parley channel pause clinic --why "carrier incident" --for 2h
      parley channel resume clinic
      parley channel close old-clinic
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@channel.command("list")
@_json_option
def list_channels(as_json: bool) -> None:
    """Every channel: whether it is paused, by whom and why, what waits, and what is left of its day.

    A channel that is not configured any more is listed for as long as something is left of it.

    \b
    Example:
      parley channel list --json | jq -r 'select(.paused) | .channel'
    """
    deployment = connect_lanes(os.environ)
    settings, client = deployment.settings, deployment.lanes
    with closing(StatsReader(settings)) as sounder:
        found = sounder.read()
    if not found.lanes.up:
        raise click.ClickException(server_failure("lanes", found.lanes))
    shards = find_readable_shards(deployment)
    sms = count_waiting_sms(client, shards)
    paused = deployment.channel_store().active_pauses(list(settings.channels))
    rows = [
        _channel_row(settings, name, stands, sms[name], paused.get(name))
        for name, stands in found.channels.items()
    ]
    removed = count_leftovers(client, shards, settings.channels)
    if as_json:
        for row in rows:
            print_json(row)
        for name, left in removed.items():
            print_json({"channel": name, "configured": False} | msgspec.structs.asdict(left))
    else:
        _print_channels(settings, rows, paused, found.lanes.now)
        for sentence in leftover_sentences(removed):
            click.echo(f"{sentence[:1].upper()}{sentence[1:]}.")


@channel.command()
@click.argument("name", metavar="CHANNEL")
@click.option("--why", required=True, help="What is said to whoever asks why nothing leaves.")
@click.option(
    "--for", "for_ms", type=DurationParam(), help="It ends by itself after that, such as 2h. Default: never."
)
@operator_option
@_json_option
def pause(name: str, why: str, for_ms: int | None, by: str, as_json: bool) -> None:
    """Let nothing leave on CHANNEL, until `resume` or --for is over.

    People are still heard, their sessions go on, and what is said to them waits. It holds whatever the provider does,
    and replaces a pause that is there. Invitations wait too.

    \b
    Example:
      parley channel pause clinic --why "carrier incident" --for 2h
    """
    deployment = connect_lanes(os.environ)
    settings, client = deployment.settings, deployment.lanes
    _require_channel(settings, name)
    replaced = deployment.channel_store().pause(name, why, for_ms, who=by)
    confirm_replicated(deployment)
    sms = count_waiting_sms(client, find_readable_shards(deployment))[name]
    if as_json:
        told = {
            "channel": name,
            "paused": True,
            "for_ms": for_ms,
            "replaced": _pause_fields(replaced),
            "sms": sms,
        }
        print_json(told)
        return
    until = f"for {format_duration(for_ms)}" if for_ms else "until `parley channel resume` ends it"
    click.echo(
        f"{name} is paused {until}; {_waiting_clause(sms)}. What is being sent at this moment still goes."
    )
    if replaced is not None:
        click.echo(
            f"It was paused already, {pause_cause_and_reason(replaced.pause)}: this pause replaces that."
        )


@channel.command()
@click.argument("name", metavar="CHANNEL")
@_json_option
def resume(name: str, as_json: bool) -> None:
    """End the pause of CHANNEL, whoever made it. What waits goes at once, at the channel's rate.

    A pause that the provider's failures made begins again if it fails again.

    \b
    Example:
      parley channel resume clinic
    """
    deployment = connect_lanes(os.environ)
    settings, client = deployment.settings, deployment.lanes
    _require_channel(settings, name)
    sms = count_waiting_sms(client, find_readable_shards(deployment))[name]  # before they leave
    ended = deployment.channel_store().resume(name)
    rate = settings.channels[name].limits.sms_per_second
    forward = deployment.outbox_store().bring_forward(name, rate)
    confirm_replicated(deployment)
    if as_json:
        told = {
            "channel": name,
            "paused": False,
            "ended": _pause_fields(ended),
            "people": forward,
            "sms": sms,
        }
        print_json(told)
        return
    was = (
        f"{name} is resumed; it was paused {pause_cause_and_reason(ended.pause)}"
        if ended is not None
        else f"{name} was not paused"
    )
    pace = f", at {rate:g} a second" if rate and sms else ""
    click.echo(f"{was}. {_waiting_clause(sms)[:1].upper()}{_waiting_clause(sms)[1:]}{pace}.")


@channel.command()
@click.argument("name", metavar="CHANNEL")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def close(name: str, yes: bool, as_json: bool) -> None:
    """End what is left of CHANNEL, which is not configured any more.

    Invitations that it holds are withdrawn, as if their inviters had cancelled them. Open sessions are cancelled by the
    workers, and their SMS that have not left are withdrawn. Opt-outs and what was said stay.

    \b
    Example:
      parley channel close old-clinic --yes
    """
    deployment = connect_both(os.environ)
    settings = deployment.settings
    if name in settings.channels:
        raise click.BadParameter(
            f"channel {name} is configured: expected one that parley.toml does not have any more",
            param_hint="CHANNEL",
        )
    left = count_leftovers(deployment.lanes, range(settings.shards), settings.channels).get(
        name, ChannelLeftovers()
    )
    if not yes and left != ChannelLeftovers():
        require_confirmation(f"End {leftovers_clause(left)} of {name}?")
    ended = close_channel(deployment.lanes, deployment.wakeup_broker().wake, settings.shards, name)
    confirm_replicated(deployment)
    if as_json:
        print_json({"channel": name, "invitations": ended.invitations, "sessions": ended.sessions})
        return
    click.echo(
        f"{pluralize(ended.invitations, 'invitation is', 'invitations are')} withdrawn, "
        f"{pluralize(ended.sessions, 'session is', 'sessions are')} being cancelled, "
        "with what they had still to say."
    )


def _require_channel(settings: Settings, name: str) -> None:
    if name not in settings.channels:
        raise click.BadParameter(
            unknown_name_problem(f"channel {name}", name, settings.channels), param_hint="CHANNEL"
        )


def _waiting_clause(sms: int) -> str:
    return f"{sms or 'no'} SMS {'waits' if sms == 1 else 'wait'}"


def _pause_fields(paused: ActivePause | None) -> object:
    return None if paused is None else msgspec.to_builtins(paused.pause) | {"left_ms": paused.left_ms}


def _channel_row(
    settings: Settings, name: str, stands: ChannelStats, sms: int, paused: ActivePause | None
) -> dict[str, object]:
    channel = settings.channels[name]
    return {
        "channel": name,
        "configured": True,
        "number": channel.number,
        "provider": channel.provider,
        "paused": _pause_fields(paused),
        "sms": sms,
        "invitations": stands.held,
        "sms_today": stands.sms_today if stands.sms_cap else None,
        "sms_per_day": stands.sms_cap,
        "sms_per_second": channel.limits.sms_per_second,
        "last_webhook": stands.webhooks.good_ms or None,
        "last_forged_webhook": stands.webhooks.forged_ms or None,
    }


def _print_channels(
    settings: Settings, rows: Sequence[dict[str, object]], paused: dict[str, ActivePause], now: int
) -> None:
    console = open_console()
    wide = console.width >= NARROW_WIDTH
    table = simple_table()
    for column in ("channel", "number", "provider") if wide else ("channel",):
        table.add_column(column, no_wrap=True)
    for column in ("SMS waiting", "invitations", "SMS today", "a second"):
        table.add_column(column if wide else column.replace(" ", "\n"), justify="right", no_wrap=True)
    if wide:
        table.add_column("last webhook", no_wrap=True)
    table.add_column("paused", min_width=20)
    for row in rows:
        name = str(row["channel"])
        today = f"{row['sms_today']} of {row['sms_per_day']}" if row["sms_per_day"] else "no cap"
        rate = f"{row['sms_per_second']:g}" if row["sms_per_second"] else "no limit"
        pause = (
            Text(_pause_clause(settings, paused[name], name, now), style="red") if name in paused else "no"
        )
        table.add_row(
            name,
            *((str(row["number"]), str(row["provider"])) if wide else ()),
            str(row["sms"]),
            str(row["invitations"]),
            today,
            rate,
            *((_webhook_clause(settings, row, now),) if wide else ()),
            pause,
        )
    console.print(table)


def _webhook_clause(settings: Settings, row: Mapping[str, object], now: int) -> Text:
    """When the last good one came, by the channel's clock; and whether one with a wrong token came after it."""
    good, forged = row["last_webhook"], row["last_forged_webhook"]
    zone = settings.channels[str(row["channel"])].timezone
    came = Text(format_clock_time(good, now, zone) if isinstance(good, int) else "never")
    if isinstance(forged, int) and (not isinstance(good, int) or forged > good):
        came.append(f"\nwrong token {format_clock_time(forged, now, zone)}", style="red")
    return came


def _pause_clause(settings: Settings, paused: ActivePause, name: str, now: int) -> str:
    zone = settings.channels[name].timezone
    since = f"since {format_clock_time(paused.pause.since, now, zone)}" if paused.pause.since else ""
    until = (
        f"until {format_clock_time(now + paused.left_ms, now, zone)}" if paused.left_ms is not None else ""
    )
    return " ".join(filter(None, (since, until, pause_cause_and_reason(paused.pause))))
