"""The header says where all labels of a dataset come from; it never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labelstore.errors import DamagedDatasetError, FormatVersionError
from labelstore.sealed_json import canonical_json, seal, unseal
from labelstore.selection import Selection

__all__ = ["FORMAT_VERSION", "HEADER_NAME", "Header", "fingerprint_of"]

FORMAT_VERSION = 0  # not frozen yet: see FORMAT.md
HEADER_NAME = ".labelgen/header.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Which teacher wrote the labels, and how."""

    format_version: int = FORMAT_VERSION
    task: str  # "generate" or "score"
    teacher: str  # as the user named it
    vocab_size: int  # rows of the teacher's output layer
    selection: Selection
    fingerprint_fields: Mapping[str, Any]  # all that changes a label, by name
    labelgen_version: str
    created_at: str  # UTC, ISO 8601

    @property
    def fingerprint(self) -> str:
        """The hash of fingerprint_fields: two datasets with the same one can be joined."""
        return fingerprint_of(self.fingerprint_fields)

    def with_selection(self, selection: Selection) -> Header:
        """Return the header of the same labels with other candidates kept: another fingerprint."""
        fields = {**self.fingerprint_fields, "selection": selection.to_json()}
        return replace(self, selection=selection, fingerprint_fields=fields)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "selection": self.selection.to_json(), "fingerprint": self.fingerprint}

    def to_bytes(self) -> bytes:
        return seal(self.to_json())

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, origin: str) -> Header:
        """Return the header of a JSON object.

        Raises:
            FormatVersionError: it was written in another format version.
            DamagedDatasetError: fields are missing, unknown, or do not give the fingerprint that it states.
        """
        if (version := content.get("format_version")) != FORMAT_VERSION:
            raise FormatVersionError(
                f"{origin}: has format version {version}, this labelgen reads version {FORMAT_VERSION}. "
                f"Read it with the labelgen that wrote it ({content.get('labelgen_version', 'unknown')})."
            )
        fields = dict(content)
        fingerprint = fields.pop("fingerprint", None)
        try:
            header = cls(**{**fields, "selection": Selection(**fields["selection"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedDatasetError(f"{origin}: is not a header ({error})") from error
        if header.fingerprint != fingerprint:
            raise DamagedDatasetError(f"{origin}: its fields do not give the fingerprint that it states")
        return header

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str) -> Header:
        return cls.from_json(unseal(data, origin=origin), origin=origin)


def fingerprint_of(fields: Mapping[str, Any]) -> str:
    """Return the sha256 of the fields' canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(fields)).hexdigest()
