"""What a process asks of the machine that it runs on: the time, a rest, and chance. Whatever needs one of these is given a
Host and asks nobody else, so that it can also run in a time and by a chance that are made up."""

import random
import secrets
import time
from collections.abc import Callable

import msgspec


class Host(msgspec.Struct, frozen=True):
    """Seconds since 1970 by a clock that may be set (`wall_s`), seconds by one that only goes on (`monotonic_s`), a rest of
    so many seconds, so many random bytes as hexadecimal digits, and a chance of 0..1, which is no secret."""

    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    token_hex: Callable[[int], str] = secrets.token_hex
    random: Callable[[], float] = random.random

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return round(self.wall_s() * 1_000)


THIS_HOST = Host()
