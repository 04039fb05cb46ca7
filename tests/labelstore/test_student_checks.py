"""A student that does not fit a dataset is refused by content; one that does is not, whatever its sizes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from labelgen.prompts.tokenizer import HFTokenizer
from labelstore import check_model, check_tokenizer, open_dataset
from labelstore.codecs import codec_named
from labelstore.dataset import LabelDataset
from labelstore.dataset_writer import DatasetWriter
from make_records import VOCAB_SIZE, make_dataset, make_header, make_record
from make_student import make_tokenizer, make_training_dataset, tiny_model
from teachers import fetch_teacher


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LabelDataset:
    records = [make_record(n) for n in range(3)]
    tokenizer = make_tokenizer()
    records = [replace(record, text=tokenizer.decode(record.target_ids.tolist())) for record in records]
    return make_training_dataset(tmp_path_factory.mktemp("labels") / "a", records)


def test_the_teachers_tokenizer_fits_and_so_does_one_with_more_tokens(dataset: LabelDataset) -> None:
    check_tokenizer(dataset, make_tokenizer())
    more = make_tokenizer()
    assert more.add_tokens(["<extra>", "<more>"]) == 2
    check_tokenizer(dataset, more)


def test_a_foreign_tokenizer_of_the_same_size_is_refused_and_shown_reading_a_record(dataset: LabelDataset) -> None:
    foreign = make_tokenizer(prefix="other")
    assert len(foreign) == VOCAB_SIZE
    with pytest.raises(
        ValueError, match=r"500 tokens is not the teacher's, fake.*begins 'word\d+ .*, with this .* 'other"
    ):
        check_tokenizer(dataset, foreign)


def test_swapped_ids_and_missing_tokens_are_refused(dataset: LabelDataset) -> None:
    class Swapped:
        def get_vocab(self) -> dict[str, int]:
            return {**make_tokenizer().get_vocab(), "word7": 8, "word8": 7}

        def decode(self, token_ids: Any) -> str:
            raise KeyError("no such id")

    with pytest.raises(ValueError, match=r"is not the teacher's.*nothing: it has no such ids"):
        check_tokenizer(dataset, Swapped())
    with pytest.raises(ValueError, match="of 499 tokens is not the teacher's"):
        check_tokenizer(dataset, make_tokenizer(num_tokens=VOCAB_SIZE - 1))


def test_another_end_of_text_is_a_warning(dataset: LabelDataset) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "word1"
    check_tokenizer(dataset, tokenizer)
    tokenizer.eos_token = "word2"
    with pytest.warns(UserWarning, match=r"ends a text with token 2, the teacher's responses end with \[1\]"):
        check_tokenizer(dataset, tokenizer)


def test_a_dataset_that_does_not_say_its_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say which tokenizer its teacher, fake, has"):
        check_tokenizer(open_dataset(make_dataset(tmp_path)), make_tokenizer())


def test_a_model_with_as_many_rows_or_more_fits_as_it_is(dataset: LabelDataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_model(dataset, tiny_model()) == check_model(dataset, 512) == VOCAB_SIZE
        assert check_model(dataset, tiny_model(vocab_size=VOCAB_SIZE + 64)) == VOCAB_SIZE


def test_a_padded_teacher_is_explained_and_its_students_rows_are_what_counts(tmp_path: Path) -> None:
    records = [make_record(n) for n in range(3)]
    padded = make_training_dataset(tmp_path / "a", records, vocab_size=VOCAB_SIZE + 128)
    with pytest.warns(UserWarning, match=r"has 500 rows, the teacher's 628: those between are padding"):
        assert check_model(padded, tiny_model()) == VOCAB_SIZE


def test_a_model_that_lacks_rows_is_refused(dataset: LabelDataset) -> None:
    highest = max(int(record.input_ids.max()) for record in dataset)
    with pytest.raises(
        ValueError, match=rf"has 300 rows, the teacher's 500.*go up to id {highest}.* of the teacher's mass"
    ):
        check_model(dataset, 300)
    assert np.mean([(record.token_ids >= 300).mean() for record in dataset]) > 0.1
    with pytest.raises(TypeError, match="object does not say how many rows its output layer has"):
        check_model(dataset, object())  # type: ignore[arg-type]


@pytest.mark.engine
def test_the_demo_teachers_tokenizers_fit_their_own_labels_and_not_each_others(tmp_path: Path) -> None:
    folders = {name: fetch_teacher(name) for name in ("smollm2", "gemma")}
    for name, folder in folders.items():
        fields = {**make_header().fingerprint_fields, **HFTokenizer(folder).fingerprint_fields}
        writer = DatasetWriter(tmp_path / name, make_header(fingerprint_fields=fields), codec=codec_named("open"))
        writer.publish_block("000000", [make_record(0)], num_prompts=1, num_rejected=0, recorded={})
        for other, other_folder in folders.items():
            tokenizer = AutoTokenizer.from_pretrained(other_folder)
            if name == other:
                check_tokenizer(open_dataset(tmp_path / name), tokenizer)
                continue
            with pytest.raises(ValueError, match="is not the teacher's"):
                check_tokenizer(open_dataset(tmp_path / name), tokenizer)
