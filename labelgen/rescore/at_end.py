"""The end of a job: while the engine is warm, the teacher reads some of its records again.

It shows that the labels on disk stand where they belong, and how noisy the engine is: the floor that a later
`labelgen verify --rescore` is measured by.
"""

from __future__ import annotations

import numpy as np

from labelgen.prompts.snapshot import PromptSnapshot
from labelgen.rescore.limits import Limits
from labelgen.rescore.rescoring import rescore_dataset
from labelgen.teachers.teacher import Teacher
from labelstore.dataset import LabelDataset
from labelstore.manifest import Manifest
from labelstore.rescored import RESCORED_NAME, Rescored
from labelstore.store import Store

__all__ = ["rescore_at_end"]


def rescore_at_end(store: Store, contents: Manifest, teacher: Teacher, *, num_records: int) -> Rescored:
    """Rescore records of a dataset, as they are on disk, of the entries given; keep what comes of it, for the manifest.

    Raises:
        EngineError: the teacher died of it. The labels are complete all the same.
        DamagedDatasetError: a record that was just written cannot be read.
    """
    dataset = LabelDataset(store, contents)
    rescored = rescore_dataset(
        dataset,
        teacher,
        num_records=num_records,
        limits=Limits.of(dataset.header.fingerprint_fields, None),
        rng=np.random.default_rng(),
        snapshot=PromptSnapshot(store.location),
    )
    store.replace(RESCORED_NAME, rescored.to_bytes())
    return rescored
