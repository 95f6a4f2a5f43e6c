"""Is the ledger right? What people said, what the archive says was heard and decided, and what providers have.

It is asked alike of every provider: each person has each SMS once and in order, also where an SMS was looked up because its
fate was unknown, or where an operator had to decide whether the person has it.
"""

from collections.abc import Iterator, Mapping, Sequence

import redis

from config.settings.settings import DEFAULT_SHARDS
from engine.model.events import SmsDecided, SmsNotSent, SmsReceived, SmsSent
from tests.support.octopush import Accepted
from workers.store import event_stream

SHARDS = DEFAULT_SHARDS


class Story:
    """What the archive tells of one sender, in its order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.said: list[tuple[str, str]] = []
        self.sent: list[str] = []
        self.unsent: list[str] = []


def stories(client: redis.Redis) -> dict[str, Story]:
    """By sender."""
    found: dict[str, Story] = {}
    for k in range(SHARDS):
        for entry in event_stream.scan_entries(client, k):
            story = found.setdefault(entry.sender, Story())
            for record in entry.records:
                match record:
                    case SmsReceived(id=identity, text=text):
                        story.heard.append((identity, text))
                    case SmsDecided(id=identity, text=text):
                        story.said.append((identity, text))
                    case SmsSent(id=identity):
                        story.sent.append(identity)
                    case SmsNotSent(id=identity):
                        story.unsent.append(identity)
                    case _:
                        pass
    return found


def wrongs(
    told: Mapping[str, Story], said: Mapping[str, Sequence[str]], hears: Mapping[str, Sequence[str]],
    accepted: Sequence[Accepted],
) -> Iterator[str]:  # fmt: skip
    """What is amiss, in words. `said` and `hears` are what each person sent, and must have got."""
    got: dict[str, list[Accepted]] = {}
    for sms in accepted:
        got.setdefault(sms.to, []).append(sms)
    for stranger in sorted((got.keys() | told.keys()) - said.keys()):
        yield f"{stranger} is nobody of ours, and has {len(got.get(stranger, []))} SMS"
    for number in sorted(said):
        story, sms = told.get(number, Story()), got.get(number, [])
        for what in _wrongs_of(story, list(said[number]), list(hears[number]), sms):
            yield f"{number}: {what}"


def _wrongs_of(story: Story, said: list[str], hears: list[str], sms: Sequence[Accepted]) -> Iterator[str]:
    heard = [text for _, text in story.heard]
    if heard != said:
        yield f"said {said}, and {heard} was applied"
    if len({identity for identity, _ in story.heard}) != len(story.heard):
        yield f"an event was applied twice: {story.heard}"
    texts = [each.text for each in sms]
    if texts != hears:
        yield f"must hear {hears}, and heard {texts}"
    has = [each.request_id for each in sms]
    decided = [each for each in story.said if each[0] in has or each[0] not in story.unsent]
    if decided != [(each.request_id, each.text) for each in sms]:
        yield f"decided {decided}, and the provider has {[(each.request_id, each.text) for each in sms]}"
    if len(set(story.sent)) != len(story.sent):
        yield f"an SMS is recorded as sent twice: {story.sent}"
    # one whose fate was unknown when a STOP withdrew it is recorded as not sent, though the provider may have it
    if set(story.sent) - set(has) or set(has) - set(story.sent) - set(story.unsent):
        yield f"sent by the archive {story.sent}, by the provider {has}"
