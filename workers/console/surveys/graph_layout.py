"""Lays a graph out beside this process: Graphviz lets nothing else of a process run, and the console has others to answer.

The same drawing is laid out once: what is kept is found by what it was made of.
"""

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import msgspec

from engine.drawing import layout
from engine.drawing.layout import Layout, LayoutArrow, LayoutRequest, Size
from engine.model.errors import ParleyError

LONGEST_S = 20.0
"""Of a survey that has hundreds of steps, with many ways between them."""

KEPT_LAYOUTS = 100


class LayoutFailedError(ParleyError):
    """The graph could not be laid out, or it took too long."""


class GraphLayouts:
    """One layout at a time; the others wait."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Layout] = OrderedDict()
        self._lock = Lock()

    def lay_out(self, nodes: dict[str, Size], arrows: Sequence[LayoutArrow]) -> Layout:
        """Raises LayoutFailedError."""
        request = msgspec.msgpack.encode(LayoutRequest(nodes, list(arrows)))
        with self._lock:
            found = self._kept.get(request)
            if found is None:
                found = self._kept[request] = _lay_out_beside(request)
                while len(self._kept) > KEPT_LAYOUTS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(request)
            return found


def _lay_out_beside(request: bytes) -> Layout:
    command = [sys.executable, "-P", layout.__file__]
    try:
        done = subprocess.run(  # noqa: S603 (our own file, and no shell)
            command, input=request, capture_output=True, timeout=LONGEST_S, check=True
        )
        return msgspec.msgpack.decode(done.stdout, type=Layout)
    except subprocess.TimeoutExpired as e:
        raise LayoutFailedError(f"it took more than {LONGEST_S:g} s to lay the graph out") from e
    except (subprocess.CalledProcessError, OSError, msgspec.MsgspecError) as e:
        raise LayoutFailedError(f"the graph cannot be laid out ({type(e).__name__})") from e
