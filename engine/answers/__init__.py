"""How a reply is read: one file per answer type (answer_type.py says what is in it), and what it makes of an SMS.

A reader takes an SMS as it came and gives an Answer, whose `raw` is that SMS unchanged, or says why it cannot. It
takes what has one meaning, however it is spelled, and guesses nothing: who wrote something else is asked again,
which costs less than a wrong answer. No SMS raises, or costs more than a millisecond.
"""

from engine.answers.answer_type import AnswerReader, InvalidAnswer, InvalidReason, Today
from engine.answers.reactions import is_reaction
from engine.model.events import Answer

__all__ = [
    "NO_MEDIA", "REACTION", "AnswerReader", "InvalidAnswer", "InvalidReason", "Today",
    "explain_invalid_answer", "invalid_answer_text", "invalid_reasons", "read_answer",
]  # fmt: skip

REACTION = "reaction"
"""Why a reaction is no answer. Nobody is told."""

NO_MEDIA = "no_media"
"""Why an SMS is no answer that is nothing but attachments, where the survey has a text for that."""

_EXPLAINED = {
    REACTION: "it is a phone's reaction to an SMS, which answers nothing, and is passed over in silence",
    NO_MEDIA: "it has attachments and no text, which the fixed text `no_media` answers",
}


def read_answer(reader: AnswerReader, sms: str, today: Today) -> Answer | InvalidAnswer:
    """Read `sms` with `reader`: an Answer, or InvalidAnswer with the reason. `today` is called only if the question
    is for a date."""
    if (not sms.isascii() or '"' in sms) and not reader.takes_reactions and is_reaction(sms):
        return InvalidAnswer(REACTION)
    return reader.read_reply(sms, today)


def invalid_reasons(reader: AnswerReader) -> tuple[InvalidReason, ...]:
    """Every reason for which `reader` may refuse an SMS, but for a reaction, of which nobody is told."""
    return tuple(refusal.reason for refusal in reader.list_refusals())


def invalid_answer_text(reader: AnswerReader, why: InvalidReason, language: str) -> str:
    """What to tell a person whose answer `reader` refused: what is wrong with it, then what is expected."""
    refusal = next(each for each in reader.list_refusals() if each.reason == why)
    return f"{refusal.sentence.say(language)} {reader.expected_after(why, language)}"


def explain_invalid_answer(reader: AnswerReader, why: InvalidReason) -> str:
    """What to tell the author about it."""
    refusals = reader.list_refusals()
    return next((each.explained for each in refusals if each.reason == why), None) or _EXPLAINED[why]
