"""Which events does an endpoint want?"""

import msgspec

from engine.hooks.hook_events import HookEvent


class EventFilter(msgspec.Struct, frozen=True):
    """Names of channels and surveys, and types of events; none: any. What is given must all be met, and an event of no survey
    is none of the surveys."""

    channels: frozenset[str] = frozenset()
    surveys: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def passes(self, event: HookEvent) -> bool:
        return (
            (not self.events or event.type in self.events)
            and (not self.channels or event.channel in self.channels)
            and (not self.surveys or event.survey in self.surveys)
        )
