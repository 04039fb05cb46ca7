"""The slow, exact reference: scores text with the full float32 softmax of a Transformers model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.prompts.token_spans import positions_in
from labelgen.prompts.tokenizer import HFTokenizer
from labelgen.teachers.full_softmax import full_softmax_labels, request_seed
from labelgen.teachers.model_files import find_model_dir, hash_config, hash_weights
from labelgen.teachers.sampling import Sampling
from labelgen.teachers.selecting import check_selection
from labelgen.teachers.teacher import Answer, Refusal, Request, ScoreRequest, TeacherFacts
from labelstore.selection import Selection

__all__ = ["TransformersTeacher"]


class TransformersTeacher:
    """A model folder or hub name under Transformers, one text at a time. It scores; it does not generate."""

    def __init__(
        self, teacher: str, *, selection: Selection, device: str = "cpu", max_model_len: int | None = None
    ) -> None:
        """Load the model in float32.

        Raises:
            ImportError: torch or transformers is missing.
            ValueError: there is no such model.
        """
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise ImportError("the reference teacher needs torch: pip install 'labelgen[torch]'") from error
        model_dir: Path = find_model_dir(teacher)
        self._selection = selection
        self._tokenizer = HFTokenizer(model_dir)
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=torch.float32).to(device).eval()
        rows: int = self._model.get_output_embeddings().weight.shape[0]
        check_selection(selection, vocab_size=rows)
        max_tokens: int = max_model_len or self._model.config.max_position_embeddings
        self._facts = TeacherFacts(
            name=teacher,
            vocab_size=rows,
            max_model_len=max_tokens,
            max_scored_tokens=max_tokens,
            stop_ids={} if (eos := self._tokenizer.eos_token_id) is None else {eos: "tokenizer"},
            sampling_defaults={},
            fingerprint_fields={
                "weights": hash_weights(model_dir),
                "model_config": hash_config(model_dir),
                "dtype": "float32",
                "head_dtype": "float32",
                "vocab_size": rows,
                **self._tokenizer.fingerprint_fields,
            },
            recorded={"engine": "transformers", "device": device},
        )

    @property
    def facts(self) -> TeacherFacts:
        return self._facts

    @property
    def selection(self) -> Selection:
        return self._selection

    @property
    def tokenizer(self) -> HFTokenizer:
        return self._tokenizer

    def full_logprobs(self, input_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the log-probabilities of every next token [T, V], in nats: row p is about position p + 1."""
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(input_ids.astype(np.int64))[None].to(self._model.device)
            logits = self._model(ids).logits[0].float()
            logprobs: NDArray[np.float32] = torch.log_softmax(logits, dim=-1).cpu().numpy()
        return logprobs

    def check_sampling(self, sampling: Sampling) -> None:
        raise ValueError("the Transformers teacher scores, it does not generate")

    def start(self) -> None:
        pass  # loaded when it was made

    def label(self, requests: Iterable[Request]) -> Iterator[Answer | Refusal]:
        for request in requests:
            if not isinstance(request, ScoreRequest):
                yield Refusal(
                    request_id=request.request_id, reason="the Transformers teacher scores, it does not generate"
                )
            elif len(request.input_ids) > self._facts.max_scored_tokens:
                reason = f"it has {len(request.input_ids)} tokens, the teacher reads {self._facts.max_scored_tokens}"
                yield Refusal(request_id=request.request_id, reason=reason)
            else:
                positions = positions_in(request.spans)
                logprobs = self.full_logprobs(request.input_ids)[positions - 1]
                labels = full_softmax_labels(
                    logprobs, request.input_ids[positions], self._selection, seed=request_seed(request.request_id)
                )
                yield Answer(
                    request_id=request.request_id, input_ids=request.input_ids, spans=request.spans, labels=labels
                )

    def close(self) -> None:
        self._model = None
