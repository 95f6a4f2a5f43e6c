"""Invitations are accepted: under their reference, once, and held until the pacer (workers/clock/invitation_pacer.py) lets them go.

On a cluster each has an answer of its own: None if a server that it needs does not answer, which keeps no other from going on.

Two steps, each of which may be repeated. First the reference is taken, where it is one for all numbers; then the
invitation is held, in its person's shard, unless it ever was. Whoever comes second, at whatever moment the first one
died, finishes what was begun or finds it done.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

from config.store import keyspace
from config.store.function_calls import Command, function_call
from config.store.server_functions import HoldInvitations, InvitationToHold, TakenReference, TakeReferences
from config.telemetry import faults
from engine.model.events import encode_event
from ingest.api.invitation_parser import InvitationRequest
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError

InvitationOutcome = Literal["accepted", "repeated", "conflict", "late"]
"""`repeated`: accepted before, with this content; `conflict`: with another. `late`: it was not, and comes too late."""

ACCEPT_TRIES = 3
RETRY_PAUSE_S = 0.2
"""Between two tries, growing."""


class InvitationIntake:
    def __init__(self, shards: int, lanes: AsyncRedisClient) -> None:
        self._shards = shards
        self._lanes = lanes

    @property
    def is_divided(self) -> bool:
        """Whether the lanes are on several servers, of which some may answer and others not."""
        return self._lanes.is_cluster

    async def accept(
        self, asked: Sequence[InvitationRequest], most_tries: int = ACCEPT_TRIES
    ) -> list[InvitationOutcome | None]:
        """What came of each, in this order. What is accepted is on disk; what has no outcome may be repeated. Raises
        RedisUnavailableError if the one server does not answer, and may be repeated then."""
        outcomes: list[InvitationOutcome | None] = [None] * len(asked)
        for tried in range(1, most_tries + 1):
            left = [at for at, outcome in enumerate(outcomes) if outcome is None]
            try:
                for at, outcome in zip(
                    left, await self._accept_once([asked[at] for at in left]), strict=True
                ):
                    outcomes[at] = outcome
            except RedisUnavailableError:
                if tried == most_tries and len(left) == len(asked):
                    raise
            if None not in outcomes:
                break
            if tried < most_tries:
                await asyncio.sleep(RETRY_PAUSE_S * tried)
        return outcomes

    async def _accept_once(self, asked: Sequence[InvitationRequest]) -> list[InvitationOutcome | None]:
        outcomes: list[InvitationOutcome | None] = ["accepted"] * len(asked)
        late = [at for at, each in enumerate(asked) if each.late_errors]
        for at, known in zip(late, await self._already_accepted([asked[at] for at in late]), strict=True):
            if known is not True:
                outcomes[at] = "late" if known is False else None
        await self._take_references(asked, outcomes)
        faults.reach("after_refer")
        await self._hold_invitations(asked, outcomes)
        faults.reach("after_hold")
        return outcomes

    async def _already_accepted(self, asked: Sequence[InvitationRequest]) -> list[bool | None]:
        """Return for each whether its reference is stored with the same content, or was erased on purpose (an empty
        value); None if its server does not say."""
        names = [keyspace.reference_key(self._shards, each.event.id) for each in asked]
        found = await self._lanes.try_commands([("GET", name) for name in names]) if names else []
        return [
            None if isinstance(stored, RedisUnavailableError) else stored in (each.fingerprint.encode(), b"")
            for stored, each in zip(found, asked, strict=True)
        ]

    async def _take_references(
        self, asked: Sequence[InvitationRequest], outcomes: list[InvitationOutcome | None]
    ) -> None:
        """Take the references of those that have one; without, nothing can be the same."""
        wanted = [at for at in _accepted_positions(outcomes) if asked[at].event.reference]
        groups = keyspace.group_by_shard(wanted, lambda at: asked[at].event.id, self._shards)
        commands = []
        for group in groups.values():
            references = [
                TakenReference(
                    reference=keyspace.reference_key(self._shards, asked[at].event.id),
                    fingerprint=asked[at].fingerprint,
                    until_ms=asked[at].known_until,
                )
                for at in group
            ]
            commands.append(function_call(TakeReferences(references=references)))
        await self._run_and_record(commands, list(groups.values()), outcomes, {0: "conflict", -1: "repeated"})

    async def _hold_invitations(
        self, asked: Sequence[InvitationRequest], outcomes: list[InvitationOutcome | None]
    ) -> None:
        groups = keyspace.group_by_shard(
            _accepted_positions(outcomes), lambda at: asked[at].sender, self._shards
        )
        commands = []
        for k, group in groups.items():
            invitations = [_held_invitation(k, asked[at]) for at in group]
            commands.append(
                function_call(
                    HoldInvitations(
                        held_invitations=keyspace.held_invitations_key(k), invitations=invitations
                    )
                )
            )
        await self._run_and_record(commands, list(groups.values()), outcomes, {0: "repeated"})
        for at, each in enumerate(asked):
            if outcomes[at] == "repeated" and not each.event.reference:
                outcomes[at] = "accepted"  # by a try whose reply was lost

    async def _run_and_record(
        self,
        commands: Sequence[Command],
        groups: Sequence[Sequence[int]],
        outcomes: list[InvitationOutcome | None],
        meaning: Mapping[int, InvitationOutcome],
    ) -> None:
        """Run the commands, one for each group, and set the outcome of each invitation whose answer `meaning` lists; None if
        there is no answer."""
        answers = await self._lanes.try_write(commands) if commands else []
        for group, answer in zip(groups, answers, strict=True):
            if isinstance(answer, RedisUnavailableError):
                for at in group:
                    outcomes[at] = None
                continue
            for at, each in zip(group, answer, strict=True):
                outcomes[at] = meaning.get(each, outcomes[at])


def _held_invitation(k: int, asked: InvitationRequest) -> InvitationToHold:
    event = asked.event
    return InvitationToHold(
        held_ids=keyspace.held_ids_key(k, event.channel),
        session=keyspace.session_key(k, event.id),
        id=event.id,
        not_before_ms=asked.not_before,
        until_ms=asked.known_until,
        sender=asked.sender,
        event=encode_event(event),
    )


def _accepted_positions(outcomes: Sequence[InvitationOutcome | None]) -> list[int]:
    return [at for at, outcome in enumerate(outcomes) if outcome == "accepted"]
