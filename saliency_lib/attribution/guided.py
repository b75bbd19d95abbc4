"""Guided backpropagation, and its product with GradCAM."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from saliency_lib.attribution.cam import gradcam
from saliency_lib.attribution.method import method
from saliency_lib.hooks import graph, hooked, uncompiled

RECTIFIERS = ("ReluBackward", "HardtanhBackward", "ThresholdBackward")  # what cuts off negative values, in autograd


def _rectifies(node) -> bool:
    """Whether a node of autograd's graph cuts off negative values, as ReLU or by a clamp at zero."""
    low = getattr(node, "_saved_min", None)
    return node.name().startswith(RECTIFIERS) or ("Clamp" in node.name() and isinstance(low, (int, float)) and low == 0)


@contextmanager
def relus_are_modules(model: nn.Module) -> Iterator[None]:
    """Raise ValueError after a forward pass inside the block unless every ReLU in it was a module, seen by hooks."""
    nodes = []

    def compare(_model, _inputs, output: Tensor) -> None:
        found = [node for node in graph(output) if _rectifies(node)]
        unseen = [node for node in found if node not in nodes]
        if not nodes:
            raise ValueError(
                f"guided backpropagation changes the gradient of ReLU modules; {type(model).__name__} has none in use"
            )
        if unseen:
            raise ValueError(
                f"{len(unseen)} of the {len(found)} ReLUs are functions called in forward, or ReLU6, where "
                "guided backpropagation would silently give the plain gradient; make each an nn.ReLU() of its own"
            )
        nodes.clear()

    modules = [module for module in uncompiled(model).modules() if isinstance(module, nn.ReLU)]
    with hooked(modules, lambda _module, _inputs, out: nodes.append(out.grad_fn)), hooked([model], compare):
        yield


@method("Springenberg et al. 2015", forwards=1, backwards=1, needs_modules=True)
def guided_backprop(model, images, seed):
    """Gradients that only positive values pass at every ReLU, (n, c, h, w), logit per unit; signed.

    Raises
    ------
    ValueError
        If a ReLU, or a clamp at zero, is a function in place of a module, or there is none. A ReLU that is written as
        a mask or a maximum is not seen.
    """
    from captum.attr import GuidedBackprop  # here, since it takes half a second

    guided = GuidedBackprop(model)

    def kernel(x, y, size):
        with relus_are_modules(model), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
            return guided.attribute(x.requires_grad_(), target=y)

    return kernel


@method("Selvaraju et al. 2019", forwards=2, backwards=2, needs_modules=True)
def guided_gradcam(model, images, seed, *, layer: str = "top"):
    """Guided backpropagation times GradCAM after its ReLU, (n, c, h, w); signed.

    captum's GuidedGradCam is the same, with nearest in place of bilinear resizing.
    """
    mask = gradcam.kernel(model, images, seed, layer=layer, relu=True)
    guided = guided_backprop.kernel(model, images, seed)
    return lambda x, y, size: mask(x, y, size).detach() * guided(x, y, size)
