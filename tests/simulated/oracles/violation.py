"""What an oracle says when a promise was broken."""


class PromiseBroken(AssertionError):
    """A promise of workers/README.md does not hold in this run. `promise` is its short name, the text says what was seen."""

    def __init__(self, promise: str, seen: str) -> None:
        super().__init__(f"{promise}: {seen}")
        self.promise = promise
