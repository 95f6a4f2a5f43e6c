"""What others wrote and we ship is what they published: the hashes are those of the files in the packages on npm."""

from hashlib import sha256
from pathlib import Path

import pytest

import workers.console

STATIC = Path(workers.console.__file__).parent / "static"

PUBLISHED = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",  # htmx.org 2.0.11, dist/htmx.min.js
    "htmx-sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",  # htmx-ext-sse 2.2.4, dist/sse.min.js
    "idiomorph-ext.min.js": "5811b9a7eda14878b7dab4378bf60432e1bb6f11fcfb970cc26540642650181e",  # idiomorph 0.8.0
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_file_is_as_published(name):
    assert sha256((STATIC / name).read_bytes()).hexdigest() == PUBLISHED[name]


def test_nothing_else_of_others_is_shipped():
    assert {path.name for path in STATIC.iterdir()} == {*PUBLISHED, "console.css", "console.js", "icon.svg"}
