"""What everybody outside of the deployment knows: what was acknowledged to whom, and what a provider got. Oracles compare it
with what the deployment says of itself."""

from typing import NamedTuple

from engine.model.events import InboundEvent, OutboundSms


class Acceptance(NamedTuple):
    """An event was acknowledged at `at_us`, that was first offered at `offered_us`. It was in its mailbox at `mailbox_us`, when
    changes of the server up to the number `change` had been made."""

    sender: str
    event: InboundEvent
    offered_us: int
    at_us: int
    change: int
    mailbox_us: int


class Arrival(NamedTuple):
    """A provider took an SMS of a person at `at_us`, of a try that began when the server had made `change` changes."""

    channel: str
    sms: OutboundSms
    ticket: str
    at_us: int
    change: int


class InvitationAnswer(NamedTuple):
    """An inviter was told at `at_us` what came of an invitation, whose session has the id."""

    sender: str
    id: str
    outcome: str
    at_us: int


class Ledger:
    def __init__(self) -> None:
        self.acceptances: list[Acceptance] = []
        self.arrivals: list[Arrival] = []
        self.invitations: list[InvitationAnswer] = []
        self.cancelled: list[str] = []
        """Sessions of which an inviter was told that nothing of them will happen any more."""
        self.taken_late: set[str] = set()
        """SMS, by id, that a provider took later than they were sent: the network kept them, or changed their order."""
        self.may_repeat: set[str] = set()
        """Dead letters, by id, that an operator has replayed though the provider may have the SMS."""
        self.losses: list[tuple[int, int]] = []
        """Of each failover that may take back what was acknowledged: from which of the server's changes on it took back, and which was the last."""

    def may_be_lost(self, change: int) -> bool:
        """Whether what was there once the server had made this change may be what a failover took back."""
        return any(first <= change <= last for first, last in self.losses)

    def invited_before(self, sender: str, us: int) -> set[str]:
        """The sessions to which somebody was invited by this moment, as the inviter was told."""
        return {each.id for each in self.invitations if each.sender == sender and each.at_us < us}
