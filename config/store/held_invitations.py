"""An invitation that is held until its turn comes, as it lies in Redis: in its person's shard, by its id."""

import msgspec

from config.store import stored_values
from engine.model.events import Invitation, decode_inbound


class HeldInvitation(msgspec.Struct, frozen=True):
    """Held since `at` (ms), in shard `k`. An event that cannot be read stands as an invitation to nothing, so that it goes
    its way like others: the worker makes it a dead letter."""

    id: str
    k: int
    sender: str
    at: int
    event: Invitation

    @property
    def is_readable(self) -> bool:
        return bool(self.event.channel)


def decode_held_invitation(identity: str, k: int, stored: bytes) -> HeldInvitation:
    """Raises ValueError if it cannot be told whose it is, and since when."""
    sender, at, encoded = stored_values.parse_held_invitation(stored)
    try:
        event = decode_inbound(encoded)
    except msgspec.MsgspecError:
        event = None
    if not isinstance(event, Invitation):
        event = Invitation(identity, "", "")
    return HeldInvitation(identity, k, sender, at, event)
