"""How a call of a server-side function is packed: what server_functions.py declares, as a command to Redis."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

from msgspec.structs import astuple

from config.store import keyspace
from config.store.function_layout import ArgumentLayout, GroupLayout, layout_of
from config.store.lua_library import LIBRARY_NAME
from config.store.server_functions import (
    JOINED_FUNCTIONS,
    Accept,
    InboundMail,
    ServerFunction,
    Wake,
    WithdrawInvitation,
)

Command = tuple[Any, ...]

_Packer = Callable[[Any, list[Any], list[Any]], None]
"""Appends the KEYS and the ARGV of a value to these lists."""


def function_call(call: ServerFunction) -> Command:
    """Return the command that makes a call."""
    name, pack = _packer_of_function(type(call))
    keys, args = list[Any](), list[Any]()
    pack(call, keys, args)
    return ("FCALL", name, len(keys), *keys, *args)


_JOINED_NAMES = {
    f"{LIBRARY_NAME}_{layout_of(function).name}": f"{LIBRARY_NAME}_joined_{layout_of(function).name}"
    for function in JOINED_FUNCTIONS
}

MAX_JOINED = 128
"""Calls that one command makes at the most, in some ms: others have their turn on the server between commands."""


def join_calls(commands: Sequence[Command]) -> tuple[list[Command], list[int]]:
    """Return commands for one server that do the same, with calls of one function that follow each other in one; and of how
    many of `commands` each of them is."""
    joined: list[Command] = []
    sizes: list[int] = []
    at = 0
    while at < len(commands):
        alike = _count_alike(commands, at)
        joined.append(commands[at] if alike == 1 else _join(commands[at : at + alike]))
        sizes.append(alike)
        at += alike
    return joined, sizes


def _count_alike(commands: Sequence[Command], at: int) -> int:
    """Return how many commands from this one on are calls that can be joined; 1 if it cannot."""
    command, name = commands[at][:2] if len(commands[at]) > 1 else ("", "")
    if command != "FCALL" or name not in _JOINED_NAMES:
        return 1
    last = min(len(commands), at + MAX_JOINED)
    return next((end for end in range(at + 1, last) if commands[end][:2] != (command, name)), last) - at


def _join(calls: Sequence[Command]) -> Command:
    keys, args = list[Any](), list[Any]()
    for _, _, count, *words in calls:
        keys += words[:count]
        args += (count, len(words) - count, *words[count:])
    return ("FCALL", _JOINED_NAMES[calls[0][1]], len(keys), *keys, *args)


def split_answers(answers: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """Return the answers to commands, of those to what `join_calls` made of them. An error is that of all that were joined."""
    split: list[Any] = []
    for answer, size in zip(answers, sizes, strict=True):
        if size == 1:
            split.append(answer)
        else:
            split += [answer] * size if isinstance(answer, Exception) else answer
    return split


@cache
def _packer_of_function(function: type[ServerFunction]) -> tuple[str, _Packer]:
    layout = layout_of(function)
    return f"{LIBRARY_NAME}_{layout.name}", _packer_of(layout, counted=False)


def _packer_of(layout: ArgumentLayout, *, counted: bool) -> _Packer:
    """`counted`: its groups have their lengths before them. That KEYS come first, then ARGV, then groups, lets all fields be
    taken at once."""
    first_arg = len(layout.keys)
    first_group = first_arg + len(layout.args)
    groups = [_packer_of_group(each, counted=counted) for each in layout.groups]

    def pack_single(value: Any, keys: list[Any], args: list[Any]) -> None:
        fields = astuple(value)
        keys += fields[:first_arg]
        args += fields[first_arg:]

    def pack(value: Any, keys: list[Any], args: list[Any]) -> None:
        fields = astuple(value)
        keys += fields[:first_arg]
        args += fields[first_arg:first_group]
        for pack_group, elements in zip(groups, fields[first_group:], strict=True):
            pack_group(elements, keys, args)

    return pack if groups else pack_single


def _packer_of_group(group: GroupLayout, *, counted: bool) -> _Packer:
    if group.element is None:
        return partial(_pack_list, in_keys=bool(group.keys), counted=counted)
    pack_one = _packer_of(group.element, counted=True)

    def pack_optional(value: Any, keys: list[Any], args: list[Any]) -> None:
        args.append(0 if value is None else 1)
        if value is not None:
            pack_one(value, keys, args)

    def pack_elements(values: Sequence[Any], keys: list[Any], args: list[Any]) -> None:
        if counted:
            args.append(len(values))
        for value in values:
            pack_one(value, keys, args)

    return pack_optional if group.optional else pack_elements


def _pack_list(
    values: Sequence[Any], keys: list[Any], args: list[Any], *, in_keys: bool, counted: bool
) -> None:
    if counted:
        args.append(len(values))
    if in_keys:
        keys += values
    else:
        args += values


# Calls that several processes make

MAILBOX_FULL = -1
"""What `accept` answers for an event of whose sender too many wait. It refuses none that has an age."""


def accept_commands(
    shards: int,
    events_in: Sequence[tuple[str, bool, bytes]],
    ages_ms: Sequence[int] = (),
    bells_database: keyspace.BellsDatabase = "",
) -> tuple[list[Command], list[list[int]]]:
    """Return commands that put (sender, is a START, event) into mailboxes, and the positions of each one's events. `ages_ms`
    says how long ago each was accepted, unless all of them are new.

    A command answers a list of ints, one an event: whom to wake, a key of QUEUES_BY_NUMBER, or MAILBOX_FULL if it was
    refused. Where it can ring in `bells_database`, nobody is left to wake.
    """
    commands: list[Command] = []
    positions: list[list[int]] = []
    for k, group in keyspace.group_by_shard(enumerate(events_in), lambda item: item[1][0], shards).items():
        events = [
            InboundMail(
                mailbox=keyspace.mailbox_key(k, sender),
                sender=sender,
                event=keyspace.mail_prefix(start) + event,
            )
            for _, (sender, start, event) in group
        ]
        ages = [ages_ms[at] for at, _ in group] if ages_ms else ()
        commands.append(
            function_call(
                Accept(
                    lane_alarms=keyspace.lane_alarms_key(k),
                    server=keyspace.server_key(k),
                    bells_database=bells_database,
                    events=events,
                    ages_ms=ages,
                )
            )
        )
        positions.append([at for at, _ in group])
    return commands, positions


def withdraw_invitation_command(
    k: int, channel: str, identity: str, sender: str, records: bytes, state: str
) -> Command:
    """Return the command that holds an invitation no more, and has its campaign count it as `state` (empty: not at all). It
    answers 1 if it was held."""
    return function_call(
        WithdrawInvitation(
            held_ids=keyspace.held_ids_key(k, channel),
            held_invitations=keyspace.held_invitations_key(k),
            session=keyspace.session_key(k, identity),
            events=keyspace.events_key(k),
            campaigns=keyspace.campaigns_key(k),
            campaign_sessions=keyspace.campaign_sessions_key(k),
            id=identity,
            sender=sender,
            state=state,
            records=records,
        )
    )


def wake_command(queue: str, senders: Iterable[str]) -> Command:
    """Return the command, for the broker's Redis, that wakes a worker of `queue` for these senders."""
    return function_call(Wake(wakeup_queue=keyspace.wakeup_queue_key(queue), senders=[*senders]))
