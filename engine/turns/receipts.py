"""What has become of an SMS? Its receipts tell, in any order and more than once; what is known only goes forwards.

A receipt that brings nothing new changes nothing, so receipts need not be remembered one by one: the line knows how
far each of its last SMS has come, under eight bytes of a hash of its name.
"""

from collections.abc import Mapping
from hashlib import blake2b

from engine.model.events import Delivered, Outbound, Receipt, SmsState, session_of_sms
from engine.model.lane import Lane
from engine.turns.session_routing import main_line, open_on
from engine.turns.turn import Turn

_RANK: Mapping[SmsState, int] = {"sent": 1, "failed": 2, "delivered": 3}
_MOST = 64
"""SMS of one line whose state is known. A receipt for an older one that comes again is recorded again."""


def receive(turn: Turn, receipt: Receipt) -> None:
    """Apply one receipt. A number that gets no SMS ends the session that the SMS belonged to."""
    known = main_line(turn.lane, receipt.channel).receipts
    rank = _RANK.get(receipt.state, 0)
    name = _hashed((rank and (receipt.sms or receipt.ticket)) or receipt.id)
    if known.get(name, -1) >= rank:
        return
    known[name] = rank
    while len(known) > _MOST:
        del known[next(iter(known))]
    turn.records.append(
        Delivered(
            turn.now, receipt.channel, receipt.ticket, receipt.status, receipt.state, receipt.code, receipt.why,
            receipt.sms,
        )
    )  # fmt: skip
    if receipt.state == "failed" and receipt.permanent:
        _give_up(turn, receipt)


def _give_up(turn: Turn, receipt: Receipt) -> None:
    """Where no session is named, every one that is open writes to a number which gets no SMS."""
    named = session_of_sms(receipt.sms)
    if named:
        turn.withdraw(named, "unreachable")
    for line, session in list(open_on(turn.lane, receipt.channel)):
        if session.id == named or not named:
            turn.withdraw(session.id, "unreachable")
            why = receipt.why or receipt.code or receipt.status
            turn.end(receipt.channel, line, session, "unreachable", why)


def _hashed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def known_of(lane: Lane, sms: Outbound) -> SmsState:
    """How far an SMS has come, as its receipts have told; empty if they have not, or it is long ago."""
    line = lane.lines.get(sms.channel)
    rank = line.receipts.get(_hashed(sms.id), 0) if line is not None else 0
    return next((state for state, each in _RANK.items() if each == rank), "")
