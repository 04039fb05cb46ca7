"""What can be wrong with a dataset on disk. What a caller passed wrongly is a ValueError or TypeError instead."""

from __future__ import annotations

__all__ = [
    "DamagedDatasetError",
    "FingerprintError",
    "FormatVersionError",
    "NotADatasetError",
    "StorageError",
    "UnreachableStoreError",
]


class StorageError(Exception):
    """Something on disk is not as it must be; the message says what, where and what to do."""


class NotADatasetError(StorageError):
    """The folder holds no label dataset, or holds something else."""


class DamagedDatasetError(StorageError):
    """Bytes of a dataset are missing, changed or contradict each other."""


class FormatVersionError(StorageError):
    """The dataset was written in a format version that this code does not read."""


class FingerprintError(StorageError):
    """The dataset in the folder comes from another teacher or other settings than the job at hand."""


class UnreachableStoreError(StorageError):
    """An object store refuses a request, or does not answer however often it is asked."""
