"""SLIC superpixels: made once per image, shared by all networks and methods."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

KEPT = 20_000_000  # pixels of segmentations that are remembered
_cache: OrderedDict[tuple, Tensor] = OrderedDict()


def superpixels(image: Tensor, n_segments: int) -> Tensor:
    """Segments of one image, (h, w) int64, numbered from 0 without gaps; at most about ``n_segments`` of them.

    Achanta et al. 2012, by scikit-image, on the normalised image (c, h, w) stretched to [0, 1]. The same image always
    gives the same segments, from memory if it was seen lately.
    """
    if n_segments < 2:
        raise ValueError(f"at least two superpixels are needed, not n_segments={n_segments}")
    values = image.detach().cpu().float().contiguous().numpy()
    key = (hashlib.sha256(values.tobytes()).digest(), values.shape, n_segments)
    if key not in _cache:
        stretched = (values - values.min()) / max(np.ptp(values), 1e-12)
        gray = len(values) != 3
        picture = stretched.mean(0) if gray else stretched.transpose(1, 2, 0)
        labels = slic(picture, n_segments=n_segments, start_label=0, channel_axis=None if gray else -1)
        _cache[key] = torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))
        while len(_cache) * values[0].size > KEPT:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return _cache[key].clone()
