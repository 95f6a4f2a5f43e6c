"""In which line of its file is what a finding is about?

A finding names a step and a field; both are looked up in the file as it was composed, where each value knows its line. JSON is
composed as the YAML that it is."""

import re
from collections.abc import Iterator, Sequence

import msgspec
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from engine.surveys.findings import SurveyFinding

_FIELD_PATH = re.compile(r"(?:field (?=\S)|(?=next\[))(?P<path>\S+?)(?= is | has | \(|[:,] )")
_STEP_NUMBER = re.compile(r"(?:step number (?P<number>\d+)|item (?P<place>\d+)), ")
_PLACE = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def locate_findings(root: Node | None, findings: Sequence[SurveyFinding]) -> list[SurveyFinding]:
    """The findings about the file that is composed as `root`, those with a line that can be found there."""
    return [
        each if each.line else msgspec.structs.replace(each, line=_line_of(root, each)) for each in findings
    ]


def _line_of(root: Node | None, finding: SurveyFinding) -> int:
    """The line of the finding's field, or of the step if that is all that is known; 0 if nobody can tell."""
    numbered = _STEP_NUMBER.match(finding.reason)
    reason = finding.reason[numbered.end() :] if numbered else finding.reason
    field = _FIELD_PATH.match(reason)
    path = _PLACE.findall(field["path"]) if field else []
    if not finding.step and not numbered:
        return _follow(root, path)[0] if root is not None else 0
    steps = list(_steps_of(root))
    if numbered:
        place = int(numbered["number"]) - 1 if numbered["number"] else int(numbered["place"])
        holders = steps[place : place + 1]
    else:
        holders = [step for place, step in enumerate(steps) if _step_id(step, place) == finding.step]
    if "another step has the same id" in reason:
        holders = holders[1:2]
    elif len(holders) > 1:
        holders = [step for step in holders if _follow(step, path)[1]]
    if len(holders) != 1:
        return 0
    return _follow(holders[0], path)[0] or _start_line(holders[0])


def _follow(node: Node, path: Sequence[tuple[str, str]]) -> tuple[int, bool]:
    """The line of the last place of `path` that is there, 0 if none is, and whether all of them are."""
    line = 0
    for index, key in path:
        match node:
            case MappingNode() if key:
                pair = next((pair for pair in node.value if pair[0].value == key), None)
                if pair is None:
                    return line, False
                line, node = _start_line(pair[0]), pair[1]
            case SequenceNode() if index and int(index) < len(node.value):
                node = node.value[int(index)]
                line = _start_line(node)
            case _:
                return line, False
    return line, True


def _steps_of(root: Node | None) -> Iterator[Node]:
    match root:
        case SequenceNode():  # a questions.json
            yield from root.value
        case MappingNode():
            for key, value in root.value:
                if key.value == "steps" and isinstance(value, SequenceNode):
                    yield from value.value


def _step_id(step: Node, place: int) -> str:
    """The id of a step, or of an item of a questions.json, which is its place."""
    if not isinstance(step, MappingNode):
        return ""
    return next((str(value.value) for key, value in step.value if key.value == "id"), str(place))


def _start_line(node: Node) -> int:
    return int(node.start_mark.line) + 1
