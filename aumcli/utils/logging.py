"""What the library logs, shown by the command line: a line on standard error, as much of it as -v and -q ask for.

Every module logs to `get_logger(__name__)`. A program that imports aumcli sees what it configures itself.
"""

import logging
from collections.abc import MutableMapping
from typing import Any

from aumcli.utils.console import say
from aumcli.utils.text import shown

LOGGER = logging.getLogger("aumcli")
LOGGER.addHandler(logging.NullHandler())  # a library is silent until a program asks to hear it


class _EscapingLogger(logging.LoggerAdapter[logging.Logger]):
    """Names of files may hold bytes that are not UTF-8: escaped, any handler can write them."""

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        return shown(str(msg)), kwargs


def get_logger(name: str) -> _EscapingLogger:
    """The logger of a module, for messages without %-arguments."""
    return _EscapingLogger(logging.getLogger(name), {})


class _StandardError(logging.Handler):
    """Writes each message to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        elif record.levelno < logging.INFO:
            text = f"{record.name}: {text}"
        say(text)


_HANDLER = _StandardError()


def show_logs(verbosity: int = 0) -> None:
    """Show log messages on standard error.

    Args:
        verbosity: 0 for information and warnings, 1 or more for debugging too, -1 for warnings, -2 for errors only.
    """
    LOGGER.setLevel(min(logging.ERROR, max(logging.DEBUG, logging.INFO - 10 * verbosity)))
    LOGGER.addHandler(_HANDLER)
