"""Training a student on a label dataset with PyTorch; imported on demand, `import labelstore` needs no torch.

    import labelstore
    from labelstore.torch import BatchLoader, BatchStream, PaddingCollator
    from labelstore.torch.losses import forward_kl, student_logprobs

docs/training.md shows the whole loop.
"""

from labelstore.torch.batch import IGNORED, Batch
from labelstore.torch.collate import Collator, PackingCollator, PaddingCollator
from labelstore.torch.loader import BatchLoader
from labelstore.torch.soft_labels import SoftLabels
from labelstore.torch.stream import BatchStream

__all__ = [
    "IGNORED",
    "Batch",
    "BatchLoader",
    "BatchStream",
    "Collator",
    "PackingCollator",
    "PaddingCollator",
    "SoftLabels",
]
