"""The documents of the repository, and what stands in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

README = ROOT / "README.md"
RUNBOOK = ROOT / "config" / "prometheus" / "RUNBOOK.md"

FOLDERS = ("config", "engine", "ingest", "workers", "tests")


def documents() -> dict[Path, str]:
    """Every Markdown file beside the code, with its text."""
    beside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))
    return {path: path.read_text() for path in sorted([*ROOT.glob("*.md"), *beside])}


def rows(name: str) -> list[str]:
    """The rows of the one table between `<!-- name -->` and `<!-- /name -->`, without its head."""
    pattern = re.compile(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", re.DOTALL)
    (table,) = (table for text in documents().values() for table in pattern.findall(text))
    return str(table).splitlines()[2:]


def cells(row: str) -> list[str]:
    """The cells of a row, in which a bar that belongs to the text is written as `\\|`."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def first_words(name: str) -> list[str]:
    """What stands in backticks first in each row of the table `name`."""
    return [words[0] for row in rows(name) if (words := re.findall(r"`([^`]+)`", cells(row)[0]))]


def section(document: Path, heading: str) -> str:
    """The text under a heading, up to the next one of its level or of a higher one."""
    marks, _, _ = heading.partition(" ")
    pattern = rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(marks)}}} |\Z)"
    (found,) = re.findall(pattern, document.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[str]:
    """Its blocks of code."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to, as GitHub and GitLab make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(text: str) -> Iterator[tuple[str, str]]:
    """The (path, fragment) of each link to another place of the repository, pictures among them."""
    for target in map("".join, re.findall(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"", prose(text))):
        if not re.match(r"[a-z]+:", target):
            path, _, fragment = target.partition("#")
            yield path, fragment


def commands(text: str) -> set[str]:
    """What it says to type of `parley`, in a sentence or in a block of code."""
    typed = re.findall(r"`(parley [^`]+)`", prose(text))
    typed += (
        line for block in blocks(text) for line in re.findall(r"^(?:\$ )?(parley .+)$", block, re.MULTILINE)
    )
    return {re.sub(r"\s+#.*", "", each) for each in typed}
