"""Training a student on a label dataset with PyTorch; imported on demand, `import labelstore` needs no torch.

    import labelstore
    from labelstore.torch import BatchStream, PaddingCollator
    from labelstore.torch.losses import forward_kl, student_logprobs

docs/training.md shows the whole loop.
"""

from labelstore.torch.batch import IGNORED, Batch
from labelstore.torch.collate import Collator, PackingCollator, PaddingCollator
from labelstore.torch.soft_labels import SoftLabels

__all__ = ["IGNORED", "Batch", "Collator", "PackingCollator", "PaddingCollator", "SoftLabels"]
