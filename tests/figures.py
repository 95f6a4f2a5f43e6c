"""How easily does a stranger find his way? Figures of the source, as `make figures` prints them.

`python -m tests.figures ANOTHER_CHECKOUT …` puts those of other checkouts beside ours. tests/test_names.py holds what
must not get worse.
"""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("config", "engine", "ingest", "workers")
LINE_LENGTH = 110
ROOT = Path(__file__).parents[1]

ALIKE_BY_DESIGN = {
    "Account": "each provider's: what a channel's account is",
    "Options": "each provider's: what a channel may choose",
}
"""Class names that stand in several files, and why."""

NAMED_AFTER_WHAT_ONE_TYPES = ("commands", "roles")
"""Folders whose files are called as subcommands and lines of the Procfile are, whatever else is called so."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Source:
    """The production code of a checkout."""

    def __init__(self, root: Path) -> None:
        listed = subprocess.run(
            ["git", "ls-files", *(f"{package}/*.py" for package in PACKAGES)],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.files = sorted(Path(name) for name in listed.stdout.split() if (root / name).exists())
        self._texts = {file: (root / file).read_text() for file in self.files}
        self._trees = {file: ast.parse(text) for file, text in self._texts.items()}

    def definitions(self) -> Iterator[tuple[Path, Definition]]:
        """Every function, method and class, but those that Python names."""
        for file, tree in self._trees.items():
            for node in ast.walk(tree):
                if isinstance(node, Definition) and not node.name.startswith("__"):
                    yield file, node

    def class_names_used_twice(self) -> Mapping[str, list[Path]]:
        """Class name -> the files that define it, of those defined more than once."""
        files = defaultdict(list)
        for file, node in self.definitions():
            if isinstance(node, ast.ClassDef):
                files[node.name].append(file)
        return {name: where for name, where in files.items() if len(where) > 1}

    def one_word_share(self) -> float:
        """The share of functions, methods and classes whose name is a single word."""
        words = [_words_in(node.name) for _, node in self.definitions()]
        return sum(count <= 1 for count in words) / len(words)

    def files_by_folder(self) -> Counter[Path]:
        return Counter(file.parent for file in self.files)

    def basenames_used_twice(self) -> Mapping[str, list[Path]]:
        """File name -> where it stands, of those that stand in several folders."""
        files = defaultdict(list)
        for file in self.files:
            if not file.name.startswith("__") and not set(file.parts[:-1]) & set(NAMED_AFTER_WHAT_ONE_TYPES):
                files[file.name].append(file)
        return {name: where for name, where in files.items() if len(where) > 1}

    def longest_import_chain(self) -> list[str]:
        """Modules of which each imports the next, as many as there can be in a row."""
        modules = {
            _module_of(file): tree for file, tree in zip(self.files, self._trees.values(), strict=True)
        }
        imports = {name: _imports(tree) & modules.keys() - {name} for name, tree in modules.items()}
        chains: dict[str, list[str]] = {}

        def chain_from(module: str) -> list[str]:
            if module not in chains:
                chains[module] = []  # a circle ends here
                rest = max((chain_from(each) for each in sorted(imports[module])), key=len, default=[])
                chains[module] = [module, *rest]
            return chains[module]

        return max((chain_from(module) for module in sorted(modules)), key=len)

    def long_code_lines(self) -> list[str]:
        """`file:line` of each line of code, not of prose, that is longer than LINE_LENGTH."""
        found = []
        for file, tree in self._trees.items():
            prose = {
                line
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
            }  # fmt: skip
            for number, line in enumerate(self._texts[file].splitlines(), 1):
                if len(line) > LINE_LENGTH and number not in prose and not line.lstrip().startswith("#"):
                    found.append(f"{file}:{number}")
        return found


def _words_in(name: str) -> int:
    bare = name.strip("_")
    return len(re.findall(r"[A-Z][a-z0-9]*", bare)) if bare[:1].isupper() else len(bare.split("_"))


def _module_of(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.Module) -> set[str]:
    """The names of modules, and of what might be one, that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


class Figure(NamedTuple):
    """A row of the table: what is counted, and as it is to be at the most."""

    name: str
    wanted: str


FIGURES = (
    Figure("class names used twice, but those alike by design", "0"),
    Figure("names of functions and classes that are one word", "40 %"),
    Figure("files in the biggest folder", "21"),
    Figure("file names used twice, but for commands and roles", "0"),
    Figure("longest import chain, in modules", "20"),
    Figure(f"lines of code longer than {LINE_LENGTH}", "0"),
)


def figures_of(root: Path) -> list[str]:
    source = Source(root)
    return [
        str(len(source.class_names_used_twice().keys() - ALIKE_BY_DESIGN.keys())),
        f"{source.one_word_share():.0%}".replace("%", " %"),
        str(max(source.files_by_folder().values())),
        str(len(source.basenames_used_twice())),
        str(len(source.longest_import_chain())),
        str(len(source.long_code_lines())),
    ]


def main(others: list[str]) -> None:
    columns = [figures_of(Path(other)) for other in others] + [figures_of(ROOT)]
    heads = [*(Path(other).name for other in others), "this checkout"]
    print("| |", " | ".join(heads), "| at the most |")
    print("|---|" + "---|" * (len(columns) + 1))
    for figure, *values in zip(FIGURES, *columns, strict=True):
        print(f"| {figure.name} |", " | ".join(values), f"| {figure.wanted} |")


if __name__ == "__main__":
    main(sys.argv[1:])
