"""labelstore: teacher-label datasets on disk, for those who write them and for students who read them.

    import labelstore

    dataset = labelstore.open_dataset("my-labels")
    record = dataset[0]
    record.input_ids, record.token_ids, record.logprobs

It needs numpy, pyarrow and fsspec; the bytes are described in FORMAT.md.
"""

from labelstore.dataset import LabelDataset, open_dataset
from labelstore.errors import (
    DamagedDatasetError,
    FingerprintError,
    FormatVersionError,
    NotADatasetError,
    StorageError,
)
from labelstore.finding import Finding
from labelstore.header import Header
from labelstore.labels import Labels, top_k_labels
from labelstore.record import LabelRecord
from labelstore.record_filter import RecordFilter
from labelstore.repair import repair_dataset
from labelstore.selection import Selection
from labelstore.student_checks import check_model, check_tokenizer
from labelstore.verify import verify_dataset

__all__ = [
    "DamagedDatasetError",
    "Finding",
    "FingerprintError",
    "FormatVersionError",
    "Header",
    "LabelDataset",
    "LabelRecord",
    "Labels",
    "NotADatasetError",
    "RecordFilter",
    "Selection",
    "StorageError",
    "check_model",
    "check_tokenizer",
    "open_dataset",
    "repair_dataset",
    "top_k_labels",
    "verify_dataset",
]
