"""A dataset's README.md: ours as long as nobody has edited it.

Its last line holds the hash of all that stands before it. Where that fits, the text may be replaced; where it does not,
somebody has written there, and it is kept.
"""

from __future__ import annotations

import hashlib
import re

from labelstore.header import Header
from labelstore.markdown import escape_markdown

__all__ = ["README_NAME", "first_readme", "is_unedited", "sign_readme"]

README_NAME = "README.md"
_SIGNATURE = re.compile(rb"<!-- labelgen wrote the text above, sha256 ([0-9a-f]{64}); an edited one is kept -->\n?")

_FIRST = """\
---
configs:
- config_name: default
  data_files: data/*.parquet
tags:
- distillation
- soft-labels
- labelgen
---
# Teacher labels

Labels of the teacher {teacher} ({selection}, {vocab_size:,} rows), made with labelgen {version}.
`labelgen card` writes a dataset card in place of this text.

```python
import labelstore

dataset = labelstore.open_dataset("path/to/this/folder")
record = dataset[0]
record.input_ids, record.token_ids, record.logprobs
```

The shards are Parquet: `datasets.load_dataset`, DuckDB, pandas and polars open them. Texts and ids are plain columns;
so are the soft labels of the codec `open`. Those of the other codecs are packed, and are read as above.
"""


def first_readme(header: Header) -> bytes:
    """Return what a dataset begins with; its YAML keeps `datasets.load_dataset` from taking the JSON files for data."""
    return sign_readme(
        _FIRST.format(
            teacher=escape_markdown(header.teacher),
            selection=header.selection,
            vocab_size=header.vocab_size,
            version=header.labelgen_version,
        )
    )


def sign_readme(text: str) -> bytes:
    """Return a README's bytes, with the line that tells later whether somebody has edited it."""
    content = text.rstrip("\n").encode() + b"\n\n"
    digest = hashlib.sha256(content).hexdigest()
    return content + f"<!-- labelgen wrote the text above, sha256 {digest}; an edited one is kept -->\n".encode()


def is_unedited(data: bytes) -> bool:
    """Return whether a README is as labelgen wrote it."""
    content, newline, last = data.rstrip(b"\n").rpartition(b"\n")
    match = _SIGNATURE.fullmatch(last)
    return match is not None and hashlib.sha256(content + newline).hexdigest().encode() == match[1]
