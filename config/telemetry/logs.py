"""Logs: one vocabulary, to stderr, without phone numbers, texts or secrets.

Our own lines may carry `channel`, `session` and `sender`, the last one hashed. What libraries log through the
standard library passes at WARNING and above, without the arguments of its messages: Dramatiq's are wake-ups, and
wake-ups hold phone numbers. Whatever still looks like a phone number is masked last of all.
"""

import logging
import re
import sys
from hashlib import blake2b
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config.settings.settings import LogStyle, Settings

_PRIVATE_FIELDS = ("text", "token", "number", "phone", "key", "url", "body")
_WITHHELD = "(withheld)"
_HASH_PATTERN = re.compile(r"[0-9a-f]{10}")
_FIRST_LETTERS = "abcdefabcd"
"""What a hash of digits alone begins with instead: else it is masked, as it may be a phone number."""

_PLACEHOLDER_PATTERN = re.compile(r"%(\(\w+\))?[-#0-9 +.*]*[a-zA-Z]")
_PHONE_PATTERN = re.compile(r"\+[0-9]{5,15}|\b[0-9]{8,15}\b")


def hash_sender(key: bytes, sender: str) -> str:
    """The 10 hex digits, one a letter at least, by which logs name a sender: alike wherever `key` is, and useless without it."""
    hashed = blake2b(sender.encode(), key=key, digest_size=5).hexdigest()
    return _FIRST_LETTERS[int(hashed[0])] + hashed[1:] if hashed.isdecimal() else hashed


def is_log_name(written: str) -> bool:
    """Whether it is what `hash_sender` makes, and no phone number."""
    return bool(_HASH_PATTERN.fullmatch(written)) and not written.isdecimal()


def configure_logging(settings: Settings) -> None:
    """Send our lines and the libraries' to stderr. Calling it again replaces what it did."""
    style = settings.log
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        withhold_private_fields,
    ]
    structlog.configure(
        processors=[*chain, *_rendering_processors(style)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_drop_arguments)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering_processors(style),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _rendering_processors(style: LogStyle) -> list[Processor]:
    """The last steps. Tracebacks come plain: the pretty ones print local variables, which hold people's texts."""
    if style == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
            _mask_phone_numbers,
        ]
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [console, _mask_phone_numbers]


def withhold_private_fields(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A processor: the fields that hold what is private keep their names and lose their values."""
    for name in _PRIVATE_FIELDS:
        if name in line:
            line[name] = _WITHHELD
    if "sender" in line and not _HASH_PATTERN.fullmatch(str(line["sender"])):
        line["sender"] = _WITHHELD
    return line


def _mask_phone_numbers(_: WrappedLogger, __: str, rendered: Any) -> str:
    """A processor after the renderer: no phone number in whatever text came of the line."""
    return _PHONE_PATTERN.sub("+(withheld)", rendered)


def _drop_arguments(record: logging.LogRecord) -> bool:
    if record.args:
        record.msg, record.args = _PLACEHOLDER_PATTERN.sub("…", str(record.msg)), ()
    return True
