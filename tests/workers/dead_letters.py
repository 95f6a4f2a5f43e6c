"""What tests of `parley dead` do and look at, again and again."""

import json

from click.testing import CliRunner

from config.store import keyspace
from workers.commands.dead import dead
from workers.store import dead_letter_store


def call(*arguments, text="", status=None):
    result = CliRunner().invoke(dead, [*arguments], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if status is not None:
        assert result.exit_code == status, result.output
    return result


def told(*arguments, status=None):
    """What a command tells of each letter."""
    return [json.loads(line) for line in call(*arguments, "--json", status=status).stdout.splitlines()]


def outcomes(*arguments, status=None):
    return [each["outcome"] for each in told("replay", *arguments, "--yes", status=status)]


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


def stored(client, settings):
    """Every dead letter of every shard."""
    for k in range(settings.shards):
        yield from dead_letter_store.scan_unordered(client, k)


def letters_of(town):
    found = [
        each
        for k in range(town.world.settings.shards)
        for each in dead_letter_store.scan_in_order(town.client, k)
    ]
    return [each.letter for each in sorted(found, key=lambda each: each.index_score)]


def counted(town):
    """How many letters there are by reason, as is kept beside them."""
    found = {}
    for k in range(town.world.settings.shards):
        for reason, count in town.client.hgetall(keyspace.dead_letter_reasons_key(k)).items():
            found[reason.decode()] = found.get(reason.decode(), 0) + int(count)
    return found


def true_to_itself(town):
    """The index, the letters and their counts say the same."""
    there = letters_of(town)
    for k in range(town.world.settings.shards):
        assert town.client.zcard(keyspace.dead_letter_index_key(k)) == town.client.hlen(
            keyspace.dead_letters_key(k)
        )
    reasons = [letter.reason for letter in there]
    assert counted(town) == {reason: reasons.count(reason) for reason in set(reasons)}


def fell(town, failing, *people):
    """An answer of each of these people is a dead letter, and its fault mended."""
    for person in people:
        town.accept(person, "START")
        town.drain()
        town.accept(person, "Ada")
    town.drain()
    failing.clear()
