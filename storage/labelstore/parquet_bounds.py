"""What a Parquet file says of itself, held against its size before a parser makes room for it."""

from __future__ import annotations

import pyarrow.parquet as pq

__all__ = ["check_bounds"]

# Honest text and labels shrink to a tenth at most, equal values to a thousandth; a bomb to less than a ten-thousandth.
_MOST_PER_BYTE = 1_000
_ALWAYS_BYTES = 1 << 26
_VALUE_BYTES = 8


def check_bounds(metadata: pq.FileMetaData, index: int, *, num_bytes: int) -> None:
    """Refuse a row group that asks for more memory than a file of so many bytes can hold.

    Raises:
        ValueError: a column would take more than 1,000 bytes for each byte of the file, and 64 MiB.
    """
    most = _ALWAYS_BYTES + _MOST_PER_BYTE * num_bytes
    row_group = metadata.row_group(index)
    for place in range(metadata.num_columns):
        column = row_group.column(place)
        asked = max(column.total_uncompressed_size, _VALUE_BYTES * max(column.num_values, row_group.num_rows))
        if asked > most:
            raise ValueError(
                f"column {column.path_in_schema} asks for {asked:,} bytes of memory; in a file of {num_bytes:,} bytes "
                f"it may ask for {most:,}"
            )
