"""Is it known already that an invitation opens nothing? As the engine decides of the person's lane and of the list of opt-outs as
they are: nothing is changed, and what waits in the mailbox is not looked at.

What cannot be read is not known: the invitation is held then, and whoever turns the lane decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from config.host import THIS_HOST, Host
from config.settings.channels import channel_policies
from config.settings.settings import Settings
from config.store import keyspace, stored_values
from config.store.function_calls import Command
from config.store.opt_out_hashes import OptOutHashes
from engine.model import lane as lane_format
from engine.model.events import Invitation, Mail, OpeningRefused, RefusalReason
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError

KNOWN_AT_ONCE: frozenset[RefusalReason] = frozenset(("opted_out", "already_open"))
"""Whatever else may refuse an invitation is decided when its turn comes."""

KEY_READ_S = 5.0
"""How often the list's key is looked for, while there is none."""

ListedOptOuts = Mapping[str, tuple[int, str]]

_decode_opt_outs = msgspec.json.Decoder(dict[str, tuple[int, str]]).decode


class KnownRefusals:
    """Looks at lanes and at the list of opt-outs."""

    def __init__(
        self, settings: Settings, surveys: SurveyRegistry, lanes: AsyncRedisClient, host: Host = THIS_HOST
    ) -> None:
        self._surveys = surveys
        self._policies = channel_policies(settings.channels)
        self._shards = settings.shards
        self._secret = settings.optout_key
        self._lanes = lanes
        self._host = host
        self._hashes: OptOutHashes | None = None
        self._looked_s = -KEY_READ_S

    async def find(self, invitations: Sequence[tuple[str, Invitation]]) -> list[RefusalReason | None]:
        """For each (sender, invitation), why it would open nothing now, if that is known."""
        try:
            hashes = await self._read_hashes()
            found = await self._read_people([sender for sender, _ in invitations], hashes)
        except RedisUnavailableError:
            return [None] * len(invitations)
        return [
            self._refusal(sender, invitation, *found[sender]) if sender in found else None
            for sender, invitation in invitations
        ]

    async def _read_hashes(self) -> OptOutHashes | None:
        """The list's key; None as long as there is none, or another than ours."""
        now_s = self._host.monotonic_s()
        if self._hashes is None and now_s - self._looked_s >= KEY_READ_S:
            self._looked_s = now_s
            kept, check = await self._lanes.run_commands(
                [("GET", keyspace.OPTOUT_SECRET_KEY), ("GET", keyspace.OPTOUT_SECRET_CHECK_KEY)]
            )
            secret = self._secret or (kept or b"").decode()
            hashes = OptOutHashes(secret)
            if secret and check == hashes.fingerprint.encode():
                self._hashes = hashes
        return self._hashes

    async def _read_people(
        self, senders: Sequence[str], hashes: OptOutHashes | None
    ) -> dict[str, tuple[bytes, bytes]]:
        """Of those of whom anything is stored: their lane, and their entry of the list."""
        groups = keyspace.group_by_shard(dict.fromkeys(senders), str, self._shards)
        commands: list[Command] = []
        for k, group in groups.items():
            commands.append(("MGET", *(keyspace.lane_key(k, sender) for sender in group)))
            if hashes is not None:
                commands.append(("HMGET", keyspace.optouts_key(k), *map(hashes.of_number, group)))
        answers = iter(await self._lanes.try_commands(commands) if commands else [])
        found: dict[str, tuple[bytes, bytes]] = {}
        for group in groups.values():
            lanes = _values(next(answers), len(group))
            listed = _values(next(answers), len(group)) if hashes is not None else [b""] * len(group)
            found |= {
                sender: (lane, entry)
                for sender, lane, entry in zip(group, lanes, listed, strict=True)
                if lane or entry
            }
        return found

    def _refusal(
        self, sender: str, invitation: Invitation, stored: bytes, listed: bytes
    ) -> RefusalReason | None:
        now = self._host.wall_ms()
        try:
            lane = lane_format.decode_lane(stored_values.lane_state(stored))
            opted_out = _decode_opt_outs(listed) if listed else {}
            effects = advance(
                lane, sender, [Mail(now, invitation)], now, self._surveys, self._policies, opted_out=opted_out
            )
        except Exception:  # noqa: BLE001 (whoever turns the lane finds it, and has a place for it)
            return None
        return next(
            (
                record.reason
                for record in effects.records
                if isinstance(record, OpeningRefused)
                and record.id == invitation.id
                and record.reason in KNOWN_AT_ONCE
            ),
            None,
        )


def _values(answer: Any, count: int) -> list[bytes]:
    """What a server answered to MGET or HMGET; nothing if it does not answer."""
    return [b""] * count if isinstance(answer, Exception) else [each or b"" for each in answer]
