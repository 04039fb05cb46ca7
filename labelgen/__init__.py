"""labelgen: offline teacher-label datasets for LLM distillation.

    import labelgen

    spec = labelgen.RunSpec(task="generate", sources=("prompts.jsonl",), output_dir=Path("labels"), teacher="my-model")
    summary = labelgen.run(spec)

The dataset is read with `labelstore`, which a student machine can use without an engine.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelgen.job.runner import run
    from labelgen.job.spec import RunSpec

__all__ = ["RunSpec", "run"]

__version__ = importlib.metadata.version("labelgen")


def __getattr__(name: str) -> object:
    # On demand: `labelgen --help` and the engine's guard need neither numpy nor pyarrow.
    if name == "RunSpec":
        from labelgen.job.spec import RunSpec

        return RunSpec
    if name == "run":
        from labelgen.job.runner import run

        return run
    raise AttributeError(f"module 'labelgen' has no attribute {name!r}")
