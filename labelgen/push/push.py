"""Shares a dataset: searched for secrets first, the manifest last, and checked at the other end before it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelgen.push.files import SharedFile, find_secrets_in_texts, read_shared_files, shared_names
from labelgen.push.hub import HubRepo, PushError, find_differences
from labelgen.push.secrets import own_secrets
from labelstore.dataset import LabelDataset
from labelstore.dataset_writer import finish_dataset
from labelstore.errors import NotADatasetError
from labelstore.header import HEADER_NAME
from labelstore.manifest import MANIFEST_NAME, Manifest, read_manifest
from labelstore.readme import README_NAME
from labelstore.store import open_store

__all__ = ["PushSummary", "Shipment", "prepare_push", "push"]

_LAST = (README_NAME, MANIFEST_NAME)
_SHOWN = 5  # findings and differences


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSummary:
    """What stands at the other end now."""

    url: str
    commit: str
    num_files: int  # checked there
    num_bytes: int
    num_removed: int  # shards that the dataset has no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """A dataset that may be shared: every file was read, and no secret found."""

    root: Path
    dataset: LabelDataset
    files: Sequence[SharedFile]


def prepare_push(
    root: Path,
    repo: HubRepo,
    *,
    include: Sequence[str] = (),
    on_records: Callable[[int, int], None] = lambda done, total: None,
) -> Shipment:
    """Read all that would be shared; `on_records` is told how many records were searched for secrets, of how many.

    The manifest is brought up to date first.

    Raises:
        NotADatasetError, DamagedDatasetError: the folder holds no dataset, or a damaged one.
        PushError: a secret was found, or there is no README.
        ValueError: a pattern of `include` matches nothing.
    """
    if (root / HEADER_NAME).exists():
        finish_dataset(root)
    store = open_store(root)
    if (manifest := read_manifest(store)) is None:
        raise NotADatasetError(f"{root}: is no label dataset, it has no {MANIFEST_NAME}")
    dataset = LabelDataset(store, manifest)  # what the manifest lists is shared, whatever a job adds meanwhile
    if not (root / README_NAME).exists():
        raise PushError(f"{root}: has no {README_NAME}; 'labelgen card {root}' writes one")
    names = shared_names(root, dataset, include=include)
    secrets = own_secrets(os.environ, hub_token=repo.token())
    files, findings = read_shared_files(root, dataset, names, secrets)
    findings += find_secrets_in_texts(dataset, secrets, on_records=lambda done: on_records(done, len(dataset)))
    if findings:
        raise PushError(_secrets_message(root, findings))
    return Shipment(root=root, dataset=dataset, files=files)


def push(shipment: Shipment, repo: HubRepo, *, is_public: bool = False) -> PushSummary:
    """Upload a dataset to a hub's dataset repository, and check what arrived.

    Shards go before the manifest, so that it never lists one that is not there. Called again after a failure, it sends
    what is missing.

    Raises:
        PushError: the upload failed, or what arrived is not what was sent.
    """
    repo.create(is_public=is_public)
    _check_same_dataset(repo, shipment.dataset)
    names = {file.name for file in shipment.files}
    if first := sorted(names - set(_LAST)):
        repo.upload(shipment.root, first, message="Add shards")
    stale = sorted(name for name in repo.files() if _is_shard(name) and name not in names)
    message = f"Publish {len(shipment.dataset):,} records"
    commit = repo.upload(shipment.root, _LAST, message=message, delete=stale)
    if problems := find_differences(shipment.files, repo.files(revision=commit)):
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if problems[_SHOWN:] else "")
        raise PushError(f"{repo.url}: is not what was sent: {shown}. Push again; if it stays so, tell the hub.")
    return PushSummary(
        url=repo.url,
        commit=commit,
        num_files=len(names),
        num_bytes=sum(file.num_bytes for file in shipment.files),
        num_removed=len(stale),
    )


def _check_same_dataset(repo: HubRepo, dataset: LabelDataset) -> None:
    """Refuse to put labels over those of another teacher, or other settings.

    Raises:
        PushError: the repository has a manifest with another fingerprint.
    """
    if MANIFEST_NAME not in repo.files():
        return
    origin = f"{repo.url}/{MANIFEST_NAME}"
    there = Manifest.from_bytes(repo.read(MANIFEST_NAME), origin=origin).header
    if there.fingerprint != dataset.header.fingerprint:
        raise PushError(
            f"{repo.url}: holds labels of another fingerprint ({there.fingerprint[:16]} of {there.teacher}, this "
            f"dataset has {dataset.header.fingerprint[:16]}). Push under another name."
        )


def _is_shard(name: str) -> bool:
    return name.startswith("data/") and name.endswith(".parquet")


def _secrets_message(root: Path, findings: Sequence[str]) -> str:
    more = f"\n  and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return (
        f"{root}: secrets stand in what would be shared; nothing was sent:\n"
        + "\n".join(f"  {finding}" for finding in findings[:_SHOWN])
        + f"{more}\nTake them out (and change a secret that others may have seen). Values are not shown here."
    )
