"""What a student brings to a dataset in tests: a tokenizer, a tiny random model, and labels that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labelgen.prompts.tokenizer import HFTokenizer
from labelstore.codecs import codec_named
from labelstore.dataset import LabelDataset, open_dataset
from labelstore.dataset_writer import DatasetWriter
from labelstore.record import LabelRecord
from labelstore.selection import Selection
from make_records import VOCAB_SIZE, make_header, make_record

__all__ = ["make_tokenizer", "make_training_dataset", "tiny_model"]


def make_tokenizer(*, prefix: str = "word", num_tokens: int = VOCAB_SIZE) -> Any:
    """Return a tokenizer whose tokens are word0, word1, ..."""
    words = WordLevel({f"{prefix}{n}": n for n in range(num_tokens)}, unk_token=f"{prefix}0")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))


def tiny_model(*, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> Any:
    """Return a random Llama of two small layers."""
    import torch

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
        )
    ).eval()


def make_training_dataset(
    root: Path,
    records: Sequence[LabelRecord] | None = None,
    *,
    num_records: int = 40,
    block_records: int = 10,
    codec: str = "open",
    selection: Selection | None = None,
    vocab_size: int = VOCAB_SIZE,
) -> LabelDataset:
    """Write a finished dataset of the teacher with `make_tokenizer`'s tokenizer; open it."""
    tokenizer_dir = root.with_name(root.name + "-tokenizer")
    make_tokenizer().save_pretrained(str(tokenizer_dir))
    selection = selection or Selection(top_k=8)
    fields = {
        **make_header().fingerprint_fields,
        **HFTokenizer(tokenizer_dir).fingerprint_fields,
        "selection": selection.to_json(),
        "stop_ids": [1],
    }
    header = make_header(selection=selection, fingerprint_fields=fields, vocab_size=vocab_size)
    if records is None:
        sizes = np.random.default_rng(0).integers(1, 30, num_records).tolist()
        records = [make_record(n, num_labels=size, selection=selection) for n, size in enumerate(sizes)]
    writer = DatasetWriter(root, header, codec=codec_named(codec))
    for block in range(-(-len(records) // block_records)):
        part = records[block * block_records : (block + 1) * block_records]
        writer.publish_block(f"{block:06d}", part, num_prompts=len(part), num_rejected=0, recorded={})
    writer.finish()
    return open_dataset(root)
