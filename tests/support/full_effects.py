"""Effects of which every field says something, so that a test notices a field that is forgotten."""

from engine.model.effects import Effects
from engine.model.events import OutboundSms, PersonOptedIn


def full_effects() -> Effects:
    return Effects(
        outbox=[OutboundSms("a", "c", "+33600000001", "text", "")],
        records=[PersonOptedIn(1, "c", "a")],
        alarm=5,
        keep_until=6,
        has_open=True,
        silenced=["d"],
        withdrawn={"s": "cancelled"},
        sessions=[("s", 1)],
        opt_outs={"d": (1, "person")},
        displaced_events={"e": 1},
        opened_by_channel={"c": 1},
        survey_by_session={"s": "ages"},
        duplicates=1,
    )
