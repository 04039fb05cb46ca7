"""Manual pages as plain text, without their typesetting."""

from __future__ import annotations

import re

__all__ = ["strip_roff"]

_DROPPED = re.compile(  # requests whose arguments are no text, and comments
    r"""^[.'](\\"|ds|de|nr|if|ie|el|ft|ad|hy|so|ta|ne|nh|na|fi|nf|in|sp|br|TH|TP|TQ|IP|HP|LP|PP|P|PD|RS|RE|\.|$)"""
)
_REQUEST = re.compile(r"^[.'][A-Za-z]{1,3}\s*")
_CODE_POINT = re.compile(r"\\\[u([0-9A-F]{4})\]")
_ESCAPES = [
    (re.compile(r"\\f(\[[^\]]*\]|\([A-Z]{2}|.)"), ""),  # fonts
    (re.compile(r"\\s[-+]?\d"), ""),  # sizes
    (re.compile(r"\\\*(\[[^\]]*\]|\(..|.)"), ""),  # strings
    (re.compile(r"\\(\(aq|\[aq\])"), "'"),
    (re.compile(r"\\(\(dq|\[dq\])"), '"'),
    (re.compile(r"\\\((lq|rq|Bq|Fo|Fc)"), '"'),
    (re.compile(r"\\\((em|en|hy)"), "-"),
    (re.compile(r"\\(\(bu|\[bu\])"), "*"),
    (re.compile(r"\\(\(..|\[[^\]]*\])"), ""),  # other named characters
    (re.compile(r"\\[&%:,/|^]"), ""),
    (re.compile(r"\\[-]"), "-"),
    (re.compile(r"\\[ ~0]"), " "),
    (re.compile(r"\\e"), r"\\"),
]


def strip_roff(page: str) -> str:
    """Return a page written with the `man` macros as plain text; its paragraphs are kept, its requests are not."""
    lines: list[str] = []
    is_comment = False
    for line in page.splitlines():
        if line.startswith((".ig", ".de")) or is_comment:  # skipped up to the line ".."
            is_comment = line.strip() != ".."
            continue
        if line.startswith((".SH", ".SS", ".PP", ".P", ".TP", ".IP", ".LP", ".sp")) and lines and lines[-1]:
            lines.append("")
        if _DROPPED.match(line):
            continue
        text = _REQUEST.sub("", line)
        if text != line:  # the arguments of a request are quoted where they hold spaces
            text = text.replace('"', "")
        text = _CODE_POINT.sub(lambda match: chr(int(match[1], 16)), text)
        for pattern, replacement in _ESCAPES:
            text = pattern.sub(replacement, text)
        if text.strip():
            lines.append(text.rstrip())
    return "\n".join(lines) + "\n"
