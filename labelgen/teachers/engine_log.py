"""Keeps an engine's own output out of the terminal: it goes to a log file, from the driver and from every worker."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["capture_output", "cause_in", "tail_of"]

_TAIL_LINES = 15


@contextlib.contextmanager
def capture_output(log_path: Path) -> Iterator[None]:
    """Send what is written to the file descriptors 1 and 2 to a log, appending.

    Processes that are started meanwhile keep writing there for as long as they live.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, target in zip(saved, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(log)
        _send_logger_to(log_path)


def tail_of(log_path: Path) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        lines = log_path.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])


def cause_in(log_path: Path, *, start: int = 0) -> str | None:
    """Return the last error that a log names behind its byte `start`, without the log's own prefix; None where none."""
    try:
        text = log_path.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return None
    found = re.findall(r"(?:^|\s)(\w*(?:Error|Exception): \S.*)$", text, flags=re.MULTILINE)
    return found[-1] if found else None


def _send_logger_to(log_path: Path) -> None:
    """Let the driver's own vLLM logger write to the log, where it would write to stdout."""
    logger = logging.getLogger("vllm")
    ours = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if any(handler.baseFilename == str(log_path.absolute()) for handler in ours):
        return
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(log_path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
