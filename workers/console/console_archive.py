"""The archive, for pages that show what it counts."""

from engine.model.errors import ParleyError

LONGEST_READING_S = 300.0
"""Of one statement: what takes longer is given up, and told."""


class ArchiveAwayError(ParleyError):
    """There is no archive, or it cannot be read."""

    def __init__(self, why: str) -> None:
        told = f"The archive cannot be read: {why}" if why else "There is no archive"
        super().__init__(f"{told}: the process `archive` makes it, and the numbers are read from there")
