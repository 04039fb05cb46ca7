"""A chat template in place of the teacher's own, and the arguments that a template is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelstore.sealed_json import canonical_json

__all__ = ["ChatTemplate"]

_OURS = (
    "add_generation_prompt",
    "tokenize",
    "return_dict",
    "tools",
    "chat_template",
    "conversation",
    "continue_final_message",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """What the user asked for.

    Raises:
        ValueError: an argument is not JSON, or one that labelling sets itself.
    """

    text: str | None = None  # Jinja; None: the teacher's own
    arguments: Mapping[str, Any] = field(default_factory=dict)  # such as enable_thinking

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise ValueError("--chat-template: the file is empty")
        for name in self.arguments:
            if name in _OURS:
                raise ValueError(f"--chat-template-arg {name}: is set by labelgen itself")
        try:
            canonical_json(dict(self.arguments))
        except (TypeError, ValueError) as error:
            raise ValueError(f"--chat-template-arg: is no JSON value: {error}") from error
