"""Children end with their parent, however it dies: it holds one end of a pipe to which nobody writes, and they notice its end.

Law: the kernel closes the pipe, as a parent that is killed with `kill -9` says nothing to anybody. Who notices is a shell in
the process group of the child, so that it outlives whatever the child does, and is not killed with the parent's group; it
ends its group as a supervisor would: SIGTERM first, and SIGKILL for what is there after GRACE_S.
"""

import os
from types import TracebackType
from typing import Self

GRACE_S = 11
"""Seconds from SIGTERM to SIGKILL. A worker ends by itself within 9.5."""

WATCHER_SCRIPT = f"""
exec 3<&0 </dev/null
(
  read -r _ <&3
  trap '' TERM
  kill -TERM 0
  for _ in {" ".join(map(str, range(GRACE_S)))}; do sleep 1; kill -0 $$ 2>/dev/null || exit; done
  kill -KILL 0
) >/dev/null 2>&1 &
exec 3<&-
"""
"""For `sh`, at the head of what its group is about: the lifeline is its standard input, and is no more afterwards."""


class Lifeline:
    """A pipe that ends with the last process that holds its `held` end. A context manager, which lets go of both ends."""

    def __init__(self) -> None:
        self.watched, self.held = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.held)
        os.close(self.watched)
