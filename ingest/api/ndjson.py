"""A body of many lines, taken apart as it comes: nothing is kept but the line that is not whole yet, and no line that
is too long is kept at all."""

MAX_LINE_BYTES = 65_536
"""Bytes of a line."""


class LineTooLong:
    """Stands for a line that was longer than LONGEST."""


SplitLine = bytes | type[LineTooLong]


class LineSplitter:
    """`feed` it what comes, and `finish` it: each answers the lines that became whole, without their ends."""

    def __init__(self, longest: int = MAX_LINE_BYTES) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[SplitLine]:
        whole: list[SplitLine] = []
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            self._append_piece(piece)
            whole.append(self._finish_line())
        self._append_piece(pieces[-1])
        return whole

    def finish(self) -> list[SplitLine]:
        """The last line, if its end was not written."""
        return [self._finish_line()] if self._rest or self._skipping else []

    def _append_piece(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(piece) > self._longest:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += piece

    def _finish_line(self) -> SplitLine:
        line: SplitLine = LineTooLong if self._skipping else bytes(self._rest).removesuffix(b"\r")
        self._skipping = False
        self._rest.clear()
        return line
