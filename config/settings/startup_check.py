"""What must be right before a process starts: the settings, what providers find in them, the surveys, and that channels
offer only surveys that there are.

Everything is checked, and every mistake is reported at once, each in one line.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from config.settings.channels import SIMULATOR
from config.settings.config_errors import ConfigError, unknown_name_problem
from config.settings.settings import Settings, config_file, read_settings
from config.settings.survey_folder import SurveyFiles, read_survey_files
from engine.proofs.survey_loader import load_surveys
from engine.providers.provider_registry import provider_mistakes
from engine.surveys.documents import SURVEY_SUFFIXES
from engine.surveys.survey_registry import SurveyRegistry


def load_settings_and_surveys(
    environ: Mapping[str, str] = os.environ, unset: list[str] | None = None
) -> tuple[Settings, SurveyRegistry]:
    """Read the settings and the surveys that a process runs by. Raises ConfigError, with all mistakes; secrets that are not
    set are none of them for who gives a list, `unset`, to which they are added."""
    problems: list[str] = []
    settings = read_settings(environ, problems, unset)
    file = config_file(environ)
    problems += provider_mistakes(map(settings.provider_settings, settings.channels), str(file), unset)
    problems += _simulated_beside_real(settings, file)
    surveys = _load_offered_surveys(settings, file, problems)
    if problems:
        raise ConfigError(problems)
    return settings, surveys


def _simulated_beside_real(settings: Settings, file: Path) -> Iterator[str]:
    """Report simulated channels of a deployment that has real ones: simulated phones are everybody's to text with and to
    read, so that there are none where anything is real."""
    if settings.only_simulated:
        return
    for channel in settings.channels.values():
        if channel.provider == SIMULATOR:
            yield (
                f"{file}: channels.{channel.name}.provider is 'simulator' beside channels with a real one: "
                "expected a real one here too, or this channel in a deployment of its own, "
                "as simulated phones are open to everybody"
            )


def _load_offered_surveys(settings: Settings, file: Path, problems: list[str]) -> SurveyRegistry:
    """Load the surveys of the settings' folder; the channels in `file` refer to them."""
    files = _read_folder(settings.surveys, problems)
    surveys, found = load_surveys(files)
    problems += found
    if not files:
        return surveys
    known = surveys.current_names()
    broken = {Path(name).stem for name in files} if found else set()
    for channel in settings.channels.values():
        problems += [
            unknown_name_problem(f"{file}: channels.{channel.name}.surveys: {wanted}", wanted, known)
            for wanted in channel.surveys
            if wanted not in known and wanted not in broken
        ]
    return surveys


def _read_folder(folder: Path, problems: list[str]) -> SurveyFiles:
    try:
        files = read_survey_files(folder)
    except OSError as e:
        problems.append(
            f"{folder}: cannot be read ({e.strerror}): set PARLEY_SURVEYS to the folder of surveys"
        )
        return {}
    if not files:
        problems.append(
            f"{folder}: no surveys: expected {', '.join(SURVEY_SUFFIXES[:-1])} or {SURVEY_SUFFIXES[-1]} files"
        )
    return files
