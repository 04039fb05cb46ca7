"""The columns of a shard that every codec shares: who said what, and which tokens are labelled (the hard labels).

The soft labels' columns are the codec's; see codecs/. FORMAT.md describes both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelstore.record import LabelRecord

__all__ = [
    "HARD_FIELDS",
    "NUM_HARD_COLUMNS",
    "HardColumns",
    "LabelPositions",
    "hard_columns",
    "leaf_paths",
    "list_column",
]

_SPAN = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("stop", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)
_MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("other", pa.string()),  # what else the message held (tool calls, a name), as a JSON object
    ]
)

HARD_FIELDS = [
    pa.field("prompt_id", pa.string(), nullable=False),
    pa.field("response_index", pa.int32(), nullable=False),
    pa.field("document_offset", pa.int64()),
    pa.field("finish_reason", pa.string()),
    pa.field("prompt", pa.string()),
    pa.field("messages", pa.list_(_MESSAGE)),
    pa.field("text", pa.string()),
    pa.field("kept", pa.string()),  # a JSON object
    pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
    pa.field("spans", pa.list_(_SPAN), nullable=False),
    pa.field("label_positions", pa.list_(pa.int32())),  # where not all tokens of the spans have a label
]


def list_column(offsets: NDArray[np.int64], values: pa.Array) -> pa.ListArray:
    """Return a list column [len(offsets) - 1] over flat values.

    Raises:
        ValueError: a list column of one row group can hold 2^31 - 1 values.
    """
    if int(offsets[-1]) > np.iinfo(np.int32).max:
        raise ValueError(f"a row group can hold {np.iinfo(np.int32).max} values a column, got {int(offsets[-1])}")
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def leaf_paths(schema: pa.Schema) -> list[str]:
    """Return the paths of a schema's Parquet columns."""

    def below(path: str, dtype: pa.DataType) -> list[str]:
        if pa.types.is_list(dtype):
            return below(f"{path}.list.element", dtype.value_type)
        if pa.types.is_struct(dtype):
            fields = [dtype.field(i) for i in range(dtype.num_fields)]
            return [leaf for field in fields for leaf in below(f"{path}.{field.name}", field.type)]
        return [path]

    return [leaf for field in schema for leaf in below(field.name, field.type)]


NUM_HARD_COLUMNS = len(leaf_paths(pa.schema(HARD_FIELDS)))  # as Parquet counts them


def hard_columns(records: Sequence[LabelRecord]) -> list[pa.Array]:
    """Return the records' hard columns in the order of HARD_FIELDS."""
    return [
        pa.array([record.prompt_id for record in records], pa.string()),
        pa.array([record.response_index for record in records], pa.int32()),
        pa.array([record.document_offset for record in records], pa.int64()),
        pa.array([record.finish_reason for record in records], pa.string()),
        pa.array([record.prompt for record in records], pa.string()),
        pa.array([_messages_to_rows(record) for record in records], pa.list_(_MESSAGE)),
        pa.array([record.text for record in records], pa.string()),
        pa.array([json.dumps(dict(record.kept)) if record.kept else None for record in records], pa.string()),
        list_column(
            offsets_of([len(record.input_ids) for record in records]),
            pa.array(np.concatenate([record.input_ids for record in records]), pa.int32()),
        ),
        pa.array([_spans_to_rows(record) for record in records], pa.list_(_SPAN)),
        pa.array([record.label_positions for record in records], pa.list_(pa.int32())),
    ]


def offsets_of(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of the runs of these lengths begins, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class HardColumns:
    """The hard columns of one row group, ready to be sliced into records."""

    def __init__(self, table: pa.Table) -> None:
        """Take over a table of one row group.

        Raises:
            ValueError: a column is missing or of another type.
        """
        for field in HARD_FIELDS:
            if field.name not in table.column_names:
                raise ValueError(f"column {field.name!r} is missing")
            if not table.schema.field(field.name).type.equals(field.type):
                raise ValueError(
                    f"column {field.name!r} must be {field.type}, is {table.schema.field(field.name).type}"
                )
        arrays = ("input_ids", "spans", "label_positions")
        self._plain = table.select([field.name for field in HARD_FIELDS if field.name not in arrays])
        self._ids_offsets, self._ids = flat_list(table, "input_ids")
        spans = table.column("spans").combine_chunks()
        self._spans_offsets = spans.offsets.to_numpy()
        self._spans = spans.values
        self._label_positions = LabelPositions(table)

    def record_fields(self, row: int) -> dict[str, object]:
        """Return the arguments of LabelRecord, but for its labels, that stand in a row."""
        spans = self._spans[int(self._spans_offsets[row]) : int(self._spans_offsets[row + 1])]
        return self._to_fields(row, self._plain.slice(row, 1).to_pylist()[0], spans.to_pylist())

    def all_record_fields(self) -> Iterator[dict[str, object]]:
        """Yield the same for each row; for many rows that takes half the time."""
        spans = self._spans.to_pylist()
        for row, fields in enumerate(self._plain.to_pylist()):
            yield self._to_fields(row, fields, spans[self._spans_offsets[row] : self._spans_offsets[row + 1]])

    def _to_fields(self, row: int, fields: dict[str, object], spans: list[dict[str, object]]) -> dict[str, object]:
        messages = fields["messages"]
        fields["messages"] = None if messages is None else [_message_from_row(message) for message in messages]  # type: ignore[attr-defined]
        fields["kept"] = json.loads(str(fields["kept"])) if fields["kept"] is not None else {}
        fields["input_ids"] = self._ids[self._ids_offsets[row] : self._ids_offsets[row + 1]]
        edges = [(span["start"], span["stop"]) for span in spans]
        fields["spans"] = np.array(edges, dtype=np.int32).reshape(-1, 2)
        fields["span_kinds"] = tuple(span["kind"] for span in spans)
        fields["label_positions"] = self._label_positions.row(row)
        return fields


class LabelPositions:
    """The column `label_positions` of one row group."""

    def __init__(self, table: pa.Table) -> None:
        column = table.column("label_positions").combine_chunks()
        self._is_there = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count < len(column) else None
        self._offsets, self._positions = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=True)

    def row(self, row: int) -> NDArray[np.int32] | None:
        """Return a record's; None where all tokens of its spans have a label."""
        if self._is_there is None or not self._is_there[row]:
            return None
        chosen: NDArray[np.int32] = self._positions[self._offsets[row] : self._offsets[row + 1]]
        return chosen


def flat_list(table: pa.Table, name: str) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Return a list column's offsets [rows + 1] and its flat values, sharing the table's memory."""
    column = table.column(name).combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets, column.values.to_numpy(zero_copy_only=True)


def _messages_to_rows(record: LabelRecord) -> list[dict[str, object]] | None:
    if record.messages is None:
        return None
    rows: list[dict[str, object]] = []
    for message in record.messages:
        content = message.get("content")
        other = {key: value for key, value in message.items() if key not in ("role", "content")}
        if content is not None and not isinstance(content, str):  # a list of parts: kept whole beside the column
            other["content"], content = content, None
        rows.append(
            {"role": message["role"], "content": content, "other": json.dumps(other) if other else None},
        )
    return rows


def _message_from_row(row: dict[str, object]) -> dict[str, object]:
    message = {"role": row["role"], "content": row["content"]}
    if row["other"] is not None:
        message.update(json.loads(str(row["other"])))
    return message


def _spans_to_rows(record: LabelRecord) -> list[dict[str, object]]:
    return [
        {"start": start, "stop": stop, "kind": kind}
        for (start, stop), kind in zip(record.spans.tolist(), record.span_kinds, strict=True)
    ]
