"""A body of many lines, taken apart as it comes: nothing is kept but the line that is not whole yet, and no line that
is too long is kept at all."""

LONGEST = 65_536
"""Bytes of a line."""


class TooLong:
    """Stands for a line that was longer than LONGEST."""


Line = bytes | type[TooLong]


class Lines:
    """`feed` it what comes, and `end` it: each answers the lines that became whole, without their ends."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Line]:
        whole: list[Line] = []
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            self._take(piece)
            whole.append(self._line())
        self._take(pieces[-1])
        return whole

    def end(self) -> list[Line]:
        """The last line, if its end was not written."""
        return [self._line()] if self._rest or self._skipping else []

    def _take(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(piece) > self._longest:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += piece

    def _line(self) -> Line:
        line: Line = TooLong if self._skipping else bytes(self._rest).removesuffix(b"\r")
        self._skipping = False
        self._rest.clear()
        return line
