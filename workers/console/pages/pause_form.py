"""What a form says about a pause: why, and for how long."""

from collections.abc import Mapping

import falcon

MAX_WHY_LENGTH = 300

PAUSE_LENGTHS = {"30m": 1_800_000, "2h": 7_200_000, "1d": 86_400_000, "": None}
"""What one may choose, in ms; None: until it is resumed."""


def read_pause_form(form: Mapping[str, str]) -> tuple[str, int | None]:
    """Raises HTTPBadRequest."""
    why = form.get("why", "").strip()[:MAX_WHY_LENGTH]
    length = form.get("for", "")
    if not why or length not in PAUSE_LENGTHS:
        raise falcon.HTTPBadRequest(
            title="A pause needs a reason", description="It is said to whoever asks why nothing happens."
        )
    return why, PAUSE_LENGTHS[length]
