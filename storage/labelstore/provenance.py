"""What converted labels remember: each dataset they came through, and each codec that rounded them."""

from __future__ import annotations

from typing import Any

from labelstore.codecs import CODECS
from labelstore.entry import Entry, total_counts
from labelstore.header import Header

__all__ = ["lossy_codecs", "recorded_of_conversion"]


def lossy_codecs(entry: Entry) -> list[str]:
    """Return the lossy codecs that a block's values have been through, the first one first."""
    if "lossy_codecs" in entry.recorded:
        return list(entry.recorded["lossy_codecs"])
    return sorted({shard.codec for shard in entry.shards if shard.codec in CODECS and not CODECS[shard.codec].is_exact})


def recorded_of_conversion(entry: Entry, *, location: str, header: Header, lossy_codec: str | None) -> dict[str, Any]:
    """Return what the entry of a converted block records: what its source did, and the source, oldest first.

    `lossy_codec` is the one that the conversion encodes with; None if it loses nothing, or copies.
    """
    counts = total_counts([entry])
    step = {
        "location": location,
        "block": entry.block,
        "fingerprint": header.fingerprint,
        "selection": header.selection.to_json(),
        "codec": ", ".join(sorted({shard.codec for shard in entry.shards})),
        "codec_kl_nats": counts.codec_kl_sum / counts.num_labels if counts.num_labels else 0.0,
        "labelgen_version": header.labelgen_version,
    }
    return {
        **entry.recorded,
        "converted_from": [*entry.recorded.get("converted_from", []), step],
        "lossy_codecs": [*lossy_codecs(entry), *([lossy_codec] if lossy_codec is not None else [])],
    }
