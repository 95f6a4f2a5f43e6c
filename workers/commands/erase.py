"""`parley erase`: every trace of a person goes, but that they said stop.

One server-side function removes what a commit or a delivery under way would need, so that whatever is under way can add
nothing afterwards; dead letters go before that, as one that is replayed makes a lane. What is only read, the archive and
indexes, goes after that; erasing twice, or again
after a death half-way, does no harm. Mail that nobody has applied is looked at first, for a STOP in it.
"""

import json
import os
import sys
from collections.abc import Sequence
from math import inf

import click
import msgspec
import redis
from rich.console import Console
from rich.table import Table

from config.settings.channels import SIMULATOR
from config.settings.settings import Settings, exit_on_config_error
from config.store import keyspace, stored_values
from engine.model import lane as lane_format
from engine.model.lane import UnreadableLaneError
from engine.surveys.survey_registry import SurveyRegistry
from workers.clock import invitation_pacer
from workers.commands.cli_numbers import parse_sender_argument
from workers.commands.connect import connect_both
from workers.store import archive, dead_letter_store
from workers.store.lanes import LaneClaim
from workers.store.optouts import OptOutList, open_opt_out_list, opt_outs_in_lane
from workers.turns.drafts import draft_event_by_event
from workers.turns.turns import channel_policies

_PIPE_WIDTH = 100  # of tables that no terminal shows
_MAX_ERASE_ATTEMPTS = 100
_SCAN_COUNT = 1_000


class ErasureCounts(msgspec.Struct):
    """How much of a person was there. `opt_outs` are kept, without the number."""

    lanes: int = 0
    mail: int = 0
    sms: int = 0
    other_keys: int = 0
    alarms: int = 0
    archive_entries: int = 0
    dead_letters: int = 0
    sessions: int = 0
    invitations: int = 0
    simulated: int = 0
    opt_outs: int = 0


_COUNT_LABELS = {
    "lanes": "what the lane knew",
    "mail": "SMS and events from them, not yet applied",
    "sms": "SMS to them, not yet sent",
    "other_keys": "locks and tickets",
    "alarms": "alarms and wake-ups",
    "archive_entries": "entries of the archive",
    "dead_letters": "dead letters",
    "sessions": "sessions that were found by their ids",
    "invitations": "invitations that waited",
    "simulated": "what the simulated phone got",
    "opt_outs": "opt-outs, KEPT as a hash",
}


class LaneBusyError(Exception):
    """The lane changed each time that it was looked at."""


class SenderEraser:
    """What one deployment has of people, and how it is removed."""

    def __init__(
        self, client: redis.Redis, broker: redis.Redis, settings: Settings, optouts: OptOutList
    ) -> None:
        self._redis = client
        self._broker = broker
        self._settings = settings
        self._optouts = optouts

    def erase(self, sender: str) -> ErasureCounts:
        """Remove all of `sender`, and say how much it was. Raises Busy."""
        invitations = self._remove_invitations(sender)
        dead_letters = self._erase_dead_letters(sender)  # first, or a replay gives them a lane again
        erased, at = self._erase_lane(sender)
        erased.dead_letters = dead_letters
        erased.alarms += self._remove_wakeups(sender)
        self._erase_history(erased, sender, at)
        erased.invitations = invitations + self._remove_invitations(sender)
        erased.opt_outs = len(self._optouts.opt_outs_of(sender))
        return erased

    def count_traces(self, sender: str) -> ErasureCounts:
        """How much `erase` would remove."""
        k = keyspace.shard_of(sender, self._settings.shards)
        mail, sms = keyspace.run_commands(
            self._redis, [("LLEN", name(k, sender)) for name in (keyspace.mailbox_key, keyspace.outbox_key)]
        )
        (lanes,) = keyspace.run_commands(self._redis, [("EXISTS", keyspace.lane_key(k, sender))])
        (other_keys,) = keyspace.run_commands(self._redis, [("EXISTS", *_other_keys(k, sender))])
        invitations = self._count_invitations(k, sender)  # each has its session's id already
        return ErasureCounts(
            lanes=lanes,
            mail=mail,
            sms=sms,
            other_keys=other_keys,
            alarms=self._count_alarms(k, sender),
            archive_entries=sum(entry.sender == sender for entry in archive.scan_entries(self._redis, k)),
            dead_letters=sum(
                letter.sender == sender for letter in dead_letter_store.scan_unordered(self._redis, k)
            ),
            sessions=len(self._session_ids_of(k, sender)) - invitations,
            invitations=invitations,
            simulated=len(self._simulated_keys(sender)),
            opt_outs=len(self._optouts.opt_outs_of(sender)),
        )

    def _erase_lane(self, sender: str) -> tuple[ErasureCounts, int]:
        """Remove what is alive; how much it was, and when that was (ms)."""
        k = keyspace.shard_of(sender, self._settings.shards)
        keys = [
            keyspace.optouts_key(k), keyspace.lane_alarms_key(k), keyspace.outbox_alarms_key(k),
            keyspace.mailbox_key(k, sender), keyspace.lane_key(k, sender), keyspace.outbox_key(k, sender),
            *_other_keys(k, sender),
        ]  # fmt: skip
        for _ in range(_MAX_ERASE_ATTEMPTS):
            mail, stored = self._read_mail_and_state(k, sender)
            kept = self._opt_outs_to_keep(sender, stored, mail)
            args: list[object] = [sender, self._optouts.hash_number(sender), b"".join(mail), stored]
            for channel, (at, source) in kept.items():
                args += (channel, at, source)
            answer = keyspace.run_command(self._redis, keyspace.function_call("erase", keys, args))
            if answer:
                now, mails, lanes, sms, other_keys, alarms = answer
                return ErasureCounts(
                    mail=mails, lanes=lanes, sms=sms, other_keys=other_keys, alarms=alarms
                ), now
        raise LaneBusyError("their lane changes faster than it can be read: stop the workers, or try again")

    def _read_mail_and_state(self, k: int, sender: str) -> tuple[list[bytes], bytes]:
        mail, stored = keyspace.run_commands(
            self._redis,
            [("LRANGE", keyspace.mailbox_key(k, sender), 0, -1), ("GET", keyspace.lane_key(k, sender))],
        )
        return mail, stored or b""

    def _opt_outs_to_keep(self, sender: str, stored: bytes, mail: list[bytes]) -> dict[str, tuple[int, str]]:
        """What the list must say of them, once what waits is applied: to a lane that knows their opt-outs and nothing
        else, so that a survey which cannot be found loses no STOP, and a word that may be one is."""
        known = (
            _opt_outs_in_state(stored)
            if stored
            else {channel: at for channel, (at, _) in self._optouts.opt_outs_of(sender).items()}
        )
        claim = LaneClaim(sender, 0, 1, keyspace.server_time_ms(self._redis), b"", mail, known)
        applied = draft_event_by_event(claim, SurveyRegistry(), channel_policies(self._settings.channels))
        return {channel: (at, "unknown") for channel, at in known.items()} | applied.effects.opt_outs

    def _erase_history(self, erased: ErasureCounts, sender: str, at: int) -> None:
        """Remove what was written until `at` (ms)."""
        k = keyspace.shard_of(sender, self._settings.shards)
        theirs = (
            entry.id for entry in archive.scan_entries(self._redis, k, str(at)) if entry.sender == sender
        )
        sessions = self._session_ids_of(k, sender)
        archive.forget_references(self._redis, self._settings.shards, sessions)
        erased.sessions = archive.forget_sessions(self._redis, k, sessions)
        erased.archive_entries = archive.delete_entries(self._redis, k, theirs)
        if names := self._simulated_keys(sender):
            erased.simulated = keyspace.run_command(self._redis, ("UNLINK", *names))
        erased.dead_letters += self._erase_dead_letters(sender, at)

    def _erase_dead_letters(self, sender: str, at: float = inf) -> int:
        """Remove the dead letters that fell until `at` (ms); answers how many there were."""
        k = keyspace.shard_of(sender, self._settings.shards)
        return dead_letter_store.delete_matching(
            self._redis,
            k,
            lambda letter: letter.sender == sender and letter.at <= at,
            "parley erase",
            "erased",
        )

    def _session_ids_of(self, k: int, sender: str) -> list[str]:
        """The ids that lead to this person."""
        names = list(set(self._redis.scan_iter(keyspace.session_key(k, "*"), count=_SCAN_COUNT)))
        found = []
        for at in range(0, len(names), _SCAN_COUNT):
            page = names[at : at + _SCAN_COUNT]
            for name, value in zip(page, keyspace.run_command(self._redis, ("MGET", *page)), strict=True):
                if value and value.partition(b" ")[2] == sender.encode():
                    found.append(name.decode().rpartition(":")[2])
        return found

    def _simulated_keys(self, sender: str) -> list[bytes]:
        """Where the simulator keeps what it carried to them: it keeps a day's, for `parley phone`."""
        if all(channel.provider != SIMULATOR for channel in self._settings.channels.values()):
            return []
        return list(set(self._redis.scan_iter(keyspace.simulator_key(sender, "*"), count=_SCAN_COUNT)))

    def _count_alarms(self, k: int, sender: str) -> int:
        commands = [
            ("ZSCORE", alarms, sender)
            for alarms in (keyspace.lane_alarms_key(k), keyspace.outbox_alarms_key(k))
        ]
        rung = [("ZSCORE", keyspace.wakeup_queue_key(queue), sender) for queue in _QUEUES]
        found = keyspace.run_commands(self._redis, commands) + keyspace.run_commands(self._broker, rung)
        return sum(score is not None for score in found)

    def _count_invitations(self, k: int, sender: str) -> int:
        held = self._redis.hscan_iter(keyspace.held_invitations_key(k), count=_SCAN_COUNT)
        return sum(stored_values.parse_held_invitation(mail)[0] == sender for _, mail in held)

    def _remove_wakeups(self, sender: str) -> int:
        rung: Sequence[int] = keyspace.run_commands(
            self._broker, [("ZREM", keyspace.wakeup_queue_key(queue), sender) for queue in _QUEUES]
        )
        return sum(rung)

    def _remove_invitations(self, sender: str) -> int:
        return invitation_pacer.forget_invitations(self._redis, self._settings.shards, sender)


_QUEUES = (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE)


def _opt_outs_in_state(stored: bytes) -> dict[str, int]:
    """What a stored lane knows by itself; nothing if it cannot be read."""
    try:
        return opt_outs_in_lane(lane_format.decode_lane(stored_values.lane_state(stored)))
    except UnreadableLaneError:
        return {}


def _other_keys(k: int, sender: str) -> list[str]:
    return [
        name(k, sender)
        for name in (
            keyspace.lane_lock_key,
            keyspace.outbox_lock_key,
            keyspace.tickets_key,
            keyspace.failed_attempts_key,
        )
    ]


@click.command()
@click.argument("sender")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def erase(sender: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove every trace of a phone number, but that it opted out.

    Sessions, answers, transcripts, dead letters and what waits are gone for good. That they said stop is kept without
    the number, so that nobody texts them again. May be done while Parley runs.

    \b
    Example:
      parley erase +33612345678 --dry-run
    """
    sender = parse_sender_argument(sender)
    eraser = _build_eraser()
    if not (yes or dry_run):
        click.confirm(f"Remove all that is known of {sender}? It cannot be undone", abort=True, err=True)
    try:
        erased = eraser.count_traces(sender) if dry_run else eraser.erase(sender)
    except LaneBusyError as e:
        raise click.ClickException(str(e)) from e
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run} | msgspec.structs.asdict(erased)))
    else:
        _print_counts(erased, "would be removed" if dry_run else "removed")


def _build_eraser() -> SenderEraser:
    settings, client, broker = connect_both(os.environ)
    with exit_on_config_error():
        optouts = open_opt_out_list(client, settings.shards, settings.optout_key)
    return SenderEraser(client, broker, settings, optouts)


def _print_counts(erased: ErasureCounts, head: str) -> None:
    table = Table("", head, box=None)
    for name, count in msgspec.structs.asdict(erased).items():
        table.add_row(_COUNT_LABELS[name], str(count))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
