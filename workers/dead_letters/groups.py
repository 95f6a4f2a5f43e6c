"""Which dead letters are alike? What went wrong is the same, but for numbers in it: one cause, and one thing to do about it."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from workers.dead_letters.filters import Likeness, likeness_of_letter, survey_of_dead_letter
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter


class DeadLetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Letters that are alike: `count` of them, of so many `people`, by channel and survey, fallen from `oldest_at` to `newest_at` (ms).
    `code` and `why` are what the oldest says, whose id is `example`."""

    reason: str
    code: str
    why: str
    count: int
    people: int
    channels: dict[str, int]
    surveys: dict[str, int]
    oldest_at: int
    newest_at: int
    example: str

    @property
    def error(self) -> str:
        """`198 Text is invalid`."""
        return f"{self.code} {self.why}".strip()


def group_letters(letters: Iterable[DeadLetter | DramatiqLetter]) -> list[DeadLetterGroup]:
    """Sum up letters by what is alike in them, the most first."""
    groups: dict[Likeness, _GroupSums] = {}
    for letter in letters:
        groups.setdefault(likeness_of_letter(letter), _GroupSums(letter)).add(letter)
    found = [sums.group() for sums in groups.values()]
    return sorted(found, key=lambda group: (-group.count, group.oldest_at))


class _GroupSums:
    """Adds letters up, of which it keeps the oldest alone."""

    def __init__(self, letter: DeadLetter | DramatiqLetter) -> None:
        self._oldest = letter
        self._newest_at = letter.at
        self._count = 0
        self._people: set[str] = set()
        self._channels: Counter[str] = Counter()
        self._surveys: Counter[str] = Counter()

    def add(self, letter: DeadLetter | DramatiqLetter) -> None:
        self._count += 1
        self._newest_at = max(self._newest_at, letter.at)
        if letter.at < self._oldest.at:
            self._oldest = letter
        if isinstance(letter, DeadLetter):
            self._people.add(letter.sender)
            self._channels.update([letter.channel])
            self._surveys.update([survey_of_dead_letter(letter)])

    def group(self) -> DeadLetterGroup:
        oldest = self._oldest
        reason, _, _ = likeness_of_letter(oldest)
        return DeadLetterGroup(
            reason=reason,
            code=getattr(oldest, "code", ""),
            why=oldest.why,
            count=self._count,
            people=len(self._people),
            channels={name: count for name, count in self._channels.most_common() if name},
            surveys={name: count for name, count in self._surveys.most_common() if name},
            oldest_at=oldest.at,
            newest_at=self._newest_at,
            example=oldest.id,
        )
