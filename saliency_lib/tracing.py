"""Looking at what a model does in a pass, on a copy of it that costs no memory."""

import copy

import torch
from torch import Tensor, nn

SIDES = (32, 28, 16, 64, 96, 128, 224, 256, 299, 384)  # of the pictures that are tried where none is given


def sharing(model: nn.Module) -> nn.Module:
    """A copy whose weights and statistics are tensors of their own, as ``.to`` needs, on the memory of the model's."""
    views = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    views |= {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, views)


def bare(model: nn.Module) -> nn.Module:
    """Such a copy in eval mode and without hooks, for a pass that nobody should notice."""
    model = sharing(model).eval()
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks, module._backward_hooks):
            hooks.clear()
    return model


def probe(model: nn.Module) -> Tensor:
    """A blank batch of one that the model takes, where its weights are; found by trying.

    Raises
    ------
    ValueError
        If none of the usual sizes will do.
    """
    convolution, linear = (
        next((m for m in model.modules() if isinstance(m, kind)), None) for kind in (nn.Conv2d, nn.Linear)
    )
    shapes = [(1, convolution.in_channels, side, side) for side in SIDES] if convolution else []
    shapes += [(1, linear.in_features)] if linear else []
    like = next((p for p in model.parameters()), torch.empty(0))
    for shape in shapes:
        try:
            with torch.no_grad():
                model(like.new_zeros(shape))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return like.new_zeros(shape)
    raise ValueError(f"found no input that {type(model).__name__} takes; pass images=, a batch of one is enough")
