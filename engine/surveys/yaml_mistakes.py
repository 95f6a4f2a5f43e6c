"""What is wrong with a file that is no YAML, and where? In an author's words: which line, and what mends it.

A YAML parser tells what it would have taken next. An author wants to know what they did: a text with a colon and no
quotation marks, a line indented otherwise than the one above, a tab.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec
from ruamel.yaml.error import MarkedYAMLError

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_DASHES = re.compile(r"^(?:- +)+")
_FIELD = re.compile(r"(?P<quote>['\"]?)[^\s:'\"{}\[\],#]+(?P=quote)(?=:(?:\s|$))")
_MOST_SHOWN = 100
"""Characters of a line; a text may be a megabyte."""

_QUOTE_IT = "put the text into quotation marks"


class YamlMistake(msgspec.Struct, frozen=True):
    """Where and what; `line` and `column` count from 1, `mend` may be empty."""

    line: int
    column: int
    reason: str
    mend: str = ""


def split_lines(text: str) -> list[str]:
    """The lines of a YAML file, as its parser counts them."""
    return _LINE_BREAK.split(text)


def excerpt_of(text: str, line: int, column: int) -> str:
    """The line of the text, and below it a caret under the column."""
    lines = split_lines(text)
    if not 1 <= line <= len(lines):
        return ""
    shown = "".join(each if each.isprintable() else "→" if each == "\t" else "?" for each in lines[line - 1])
    start = max(0, column - 1 - _MOST_SHOWN // 2)
    before, after = "…" if start else "", "…" if len(shown) > start + _MOST_SHOWN else ""
    pointer = " " * (column - 1 - start + len(before)) + "^"
    return f"{before}{shown[start : start + _MOST_SHOWN]}{after}\n{pointer}"


def explain_yaml_error(error: MarkedYAMLError, text: str) -> YamlMistake:
    """Say what the author of `text` did, as far as that can be told; else what the parser says."""
    lines = split_lines(text)
    problem = (error.problem or "this is not YAML").splitlines()[0]
    mark, begun = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    if mark is None or begun is None:
        return YamlMistake(0, 0, problem)
    spot, start = (mark.line + 1, mark.column + 1), (begun.line + 1, begun.column + 1)
    if spot[0] >= len(lines) > 1 and not lines[-1]:
        spot = (len(lines) - 1, len(lines[-2]) + 1)  # the end of the file is shown as that of its last line
    told = _ParserError(problem, error.context or "", spot, start, lines)
    return (
        _explain_character(told)
        or _explain_quotes(told)
        or _explain_brackets(told)
        or _explain_structure(told)
        or YamlMistake(*spot, problem, _QUOTE_IT if _begins_with_sign(told.line) else "")
    )


_Spot = tuple[int, int]


class _ParserError(msgspec.Struct, frozen=True):
    """The parser's `problem` at `spot` (line and column), and its `context`, which begins at `start`."""

    problem: str
    context: str
    spot: _Spot
    start: _Spot
    lines: Sequence[str]

    @property
    def line(self) -> str:
        return self.lines[self.spot[0] - 1] if self.spot[0] <= len(self.lines) else ""


def _explain_character(e: _ParserError) -> YamlMistake | None:
    """A character that no text begins with, or a tab."""
    if "'\\t'" in e.problem:
        return YamlMistake(
            *e.spot, "a tab stands where YAML takes spaces only", "indent with spaces, not tabs"
        )
    if cannot := re.match(r"found character '(.+)' that cannot start", e.problem):
        return YamlMistake(*e.spot, f"no text begins with {cannot[1]} in YAML", _QUOTE_IT)
    if alias := re.match(r"found undefined alias '(.+)'", e.problem):
        return YamlMistake(
            *e.spot, f"YAML reads *{alias[1][:40]} as a reference, to what is nowhere", _QUOTE_IT
        )
    if e.context.startswith("while scanning an a"):
        return YamlMistake(*e.start, "YAML reads what begins with & or * as a reference", _QUOTE_IT)
    if e.context == "while scanning a block scalar":
        return YamlMistake(
            *e.start,
            "the text after | and > begins on the next line",
            "put it there, or into quotation marks",
        )
    if e.problem.startswith("found unknown escape"):
        return YamlMistake(
            *e.spot, "YAML knows no such character after a backslash", "write two backslashes for one"
        )
    return None


def _explain_quotes(e: _ParserError) -> YamlMistake | None:
    """A quotation mark that is not closed, or closed too early."""
    if e.context == "while scanning a quoted scalar":
        return YamlMistake(*e.start, "the quotation mark is never closed", "close it at the end of the text")
    if e.problem.startswith("expected <block end>, but found") and e.spot[1] > 1:
        value = _value_in(e.line)
        if value[:1] in ("'", '"'):
            return YamlMistake(
                *e.spot,
                "something follows the closing quotation mark",
                "let quotation marks enclose the whole text; those in it are written '' or \\\"",
            )
        if value[:1] in ("{", "["):
            return YamlMistake(
                *e.spot, f"YAML reads a text that begins with {value[0]} as a collection", _QUOTE_IT
            )
    return None


def _explain_brackets(e: _ParserError) -> YamlMistake | None:
    """Braces and brackets that are not closed, or hold what they cannot."""
    if e.context not in (
        "while parsing a flow mapping",
        "while parsing a flow sequence",
        "while parsing a flow node",
    ):
        return None
    if "<stream end>" in e.problem:
        return YamlMistake(
            *(e.start if e.context[-4:] != "node" else e.spot), "a { or [ is never closed", "close it"
        )
    if e.context == "while parsing a flow node":
        return YamlMistake(*e.spot, "a value is missing", "")
    opened, closing = ("{", "}") if e.context.endswith("mapping") else ("[", "]")
    if e.spot[0] > e.start[0]:
        return YamlMistake(
            *e.start, f"the {opened} is not closed before line {e.spot[0]}", f"close it with {closing}"
        )
    mend = "quote a text that has a colon, a comma or a bracket, and put a comma between values"
    return YamlMistake(*e.spot, f"the {opened} of this line goes on otherwise than it may", mend)


def _explain_structure(e: _ParserError) -> YamlMistake | None:
    """Fields without a colon, texts with one, keys that stand twice, and indentation."""
    if "could not find expected ':'" in e.problem:
        return _explain_no_colon(e.start, e.lines)
    if twice := re.match(r'found duplicate key "?(.*?)"? with value', e.problem):
        return YamlMistake(
            *e.spot, f"the key '{twice[1][:40]}' stands twice in one mapping", "take one of them out"
        )
    if e.problem == "but found another document":
        return YamlMistake(
            *e.spot, "a second document begins here", "take this line out: a file is one survey"
        )
    if e.problem.startswith(("sequence entries are not allowed", "mapping keys are not allowed")):
        return YamlMistake(*e.spot, "no text begins with a - or ? and a blank in YAML", _QUOTE_IT)
    if e.problem == "mapping values are not allowed here" and _value_in(e.line[: e.spot[1] - 1]):
        return YamlMistake(*e.spot, "a text in this line has a colon", "quote a text that has a colon")
    if e.problem.startswith(("mapping values", "expected <block end>", "expected '<document start>'")):
        return _explain_indentation(e.spot, e.lines)
    return None


def _explain_no_colon(start: _Spot, lines: Sequence[str]) -> YamlMistake:
    if stuck := re.match(r"[ -]*[\w-]+:(?=\S)", lines[start[0] - 1]):
        return YamlMistake(start[0], stuck.end() + 1, "a blank is missing after the colon", "put one there")
    return YamlMistake(
        *start,
        "a field's name and a colon are expected",
        "write `field: value`; if the text of the line above goes on here, indent it deeper than that line",
    )


def _explain_indentation(spot: _Spot, lines: Sequence[str]) -> YamlMistake | None:
    """Name the line above that the author most likely meant to go on with: that of the nearest indentation."""
    number = spot[0]
    indent, is_item, _ = _columns_of(lines[number - 1])
    near = min(
        _open_columns(lines[: number - 1], is_item),
        key=lambda found: abs(found[1] - indent),
        default=(0, indent),
    )
    if near[1] == indent:
        return None
    spaces = "no space" if near[1] == 0 else "1 space" if near[1] == 1 else f"{near[1]} spaces"
    return YamlMistake(
        number,
        indent + 1,
        f"its indentation differs from line {near[0]}",
        f"begin it with {spaces}",
    )


def _open_columns(above: Sequence[str], of_items: bool) -> Iterator[tuple[int, int]]:
    """Lines, nearest first, and the column in which their item, or field, begins: each further left than the last."""
    least = _MOST_SHOWN
    for number in range(len(above), 0, -1):
        line = above[number - 1]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        indent, is_item, column = _columns_of(line)
        if of_items and not is_item:
            continue
        found = indent if of_items else column
        if found < least:
            least = found
            yield number, found


def _columns_of(line: str) -> tuple[int, bool, int]:
    """Where a line begins, whether it begins an item of a list, and where its field does."""
    begun = line.lstrip(" ")
    indent, dashes = len(line) - len(begun), len(begun) - len(_DASHES.sub("", begun))
    return indent, dashes > 0, indent + dashes


def _value_in(line: str) -> str:
    """What stands behind the first field of a line; empty if there is none."""
    begun = _DASHES.sub("", line.lstrip(" "))
    field = _FIELD.match(begun)
    return begun[field.end() + 1 :].strip() if field else ""


def _begins_with_sign(line: str) -> bool:
    return _value_in(line)[:1] in ("!", "&", "*", "%", "@", "`", "|", ">")
