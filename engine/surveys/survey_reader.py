"""How does a file become a survey? By its name it is YAML or JSON, by its content Parley's language or Octopush's.

A survey that could be read makes sense to the engine. Whether it ends, and may run, is proved elsewhere.
"""

from hashlib import blake2b
from pathlib import PurePath

from engine.surveys.compiling import compile_survey
from engine.surveys.documents import SUFFIXES, Unparsable, parse
from engine.surveys.findings import Finding, Rejected, broken
from engine.surveys.program import Survey
from engine.surveys.questions_json import compile_questions


def read_survey(file: str, source: bytes) -> tuple[Survey, list[Finding]]:
    """The survey in a file, and warnings about how it is written. Raises Rejected."""
    if not file.endswith(SUFFIXES):
        raise Rejected(
            [broken(f"a survey's file is called {', '.join('*' + suffix for suffix in SUFFIXES)}")]
        )
    try:
        raw = parse(file, source)
    except Unparsable as e:
        raise Rejected([broken(str(e))]) from None
    version = blake2b(source, digest_size=8).hexdigest()
    if isinstance(raw, list) and file.endswith(".json"):
        return compile_questions(raw, PurePath(file).stem, file, source, version)
    return compile_survey(raw, file, source, version)


def read_stored_survey(file: str, source: bytes) -> Survey:
    """The survey in a stored file. It ran, so nothing is proved about it again. Raises Rejected."""
    survey, _ = read_survey(file, source)
    return survey
