"""The logits in what a model gives, which may be a tensor, a tuple, a mapping or an object; and their softmax."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

HALF = {torch.bfloat16: 0.1, torch.float16: 0.05}  # by how much of the largest, rounding in these lets logits differ


def entry(output: Any) -> Any:
    """The logits in what a model gives, as they are: itself, what it names so, or its first entry."""
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()), None)
    return output[0] if isinstance(output, (tuple, list)) and output else output


def of_output(output: Any) -> Any:
    """The logits in what a model gives: itself, its ``logits``, or its first entry; in float32 at least."""
    found = entry(output)
    half = isinstance(found, Tensor) and found.dtype in HALF
    return found.float() if half else found


def how_read(output: Any) -> str:
    """What of a model's output is taken for its logits; nothing to say of a tensor."""
    if isinstance(output, Tensor):
        return ""
    named = hasattr(output, "logits") or (isinstance(output, Mapping) and "logits" in output)
    part = "its logits are" if named else "the first entry is"
    kind = type(output).__name__
    return f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}; {part} taken for the logits"


def chances(outputs: Tensor) -> Tensor:
    """Softmax probabilities of logits, (n, classes); ValueError for a single output, whose softmax is always 1."""
    if outputs.shape[1] == 1:
        raise ValueError(
            "the model has one output, whose softmax is 1 whatever the picture; wrap it by audit.networks.two_sided"
        )
    return outputs.softmax(1)
