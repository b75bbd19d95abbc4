"""DeepLIFT's rescale rule: every non-linearity is replaced by the straight line between reference and image.

Not captum's: in version 0.9 its rule for max pooling after a ReLU loses part of the difference (tests/test_deeplift.py
shows it), and it sends the reference through the network once for every image.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution import layers
from saliency_lib.attribution.baselines import baseline_or_zero
from saliency_lib.attribution.method import Kernel, method
from saliency_lib.hooks import hooked, leaves, uncompiled

ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.GELU, nn.SiLU, nn.SELU, nn.CELU, nn.Mish,
    nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
EPSILON = 1e-6  # differences of inputs below it take the derivative in place of a quotient
# Of the sum of |map| and the largest logit: in large networks with random weights rounding takes up to 5e-6 of it, a
# missed non-linearity 1.4e-4 and more. In half precision, here or there in the network, it takes up to 4e-3 and 4e-4.
TOLERANCE = 5e-5
HALF = {torch.bfloat16: 2e-2, torch.float16: 4e-3}


class _Line(torch.autograd.Function):
    """A module's output for x, with the slope of the line from a reference for its gradient.

    ``box`` holds the output twice, to return and to keep: in a list, or autograd would take it for a view of an input,
    and forbid the network to change it in place. ``x0`` are the module's inputs for several references, and ``row``, a
    list, says which of them is meant.
    """

    @staticmethod
    def forward(ctx, x, box, module, x0, row):
        ctx.save_for_backward(x, box[1], x0)
        ctx.module, ctx.row = module, row
        return box[0]

    @staticmethod
    def backward(ctx, grad):
        given, out, references = ctx.saved_tensors
        x, x0, grad = map(_full, (given, references[ctx.row], grad))
        if isinstance(ctx.module, POOLS):
            return _of_pool(ctx.module, x, x0, grad), None, None, None, None
        out = out if x is given else ctx.module.forward(x)
        return _of_elements(ctx.module, x, out, x0, grad), None, None, None, None


def _full(tensor: Tensor) -> Tensor:
    """In float32 at least: quotients of small differences are noise in half precision."""
    return tensor.float() if tensor.dtype in HALF else tensor


def _of_elements(module: nn.Module, x: Tensor, out: Tensor, x0: Tensor, grad: Tensor) -> Tensor:
    """``grad`` times the quotient of the differences, or the derivative where x and x0 are nearly the same."""
    run = x - x0
    back = (out - module.forward(x0)).div_(run).mul_(grad)
    if len((near := _below(run.abs_(), EPSILON))[0]):
        back[near] = _back(module, x[near], grad[near])
    return back


def _below(values: Tensor, limit: float) -> tuple[Tensor, ...]:
    """Indices of the values below a limit, looked for where the least of all channels is: faster where few are."""
    n, *places = (values.amin(1) < limit).nonzero(as_tuple=True)
    if not len(n):
        return (n,)
    k, channel = (values.movedim(1, -1)[(n, *places)] < limit).nonzero(as_tuple=True)
    return n[k], channel, *(place[k] for place in places)


def _of_pool(module: nn.Module, x: Tensor, x0: Tensor, grad: Tensor) -> Tensor:
    """Of a window's difference, what raises the maximum goes to the image's largest pixel, the rest to the reference's
    largest (as in the authors' code); windows may overlap."""
    out, places = _largest(module, x)
    out0, places0 = (part.expand_as(out) for part in _largest(module, x0))
    top = torch.maximum(out, out0)
    up, down = top - out0, out - top
    up.div_(out - _at(x0.expand_as(x), places))  # 0/0 where nothing differs, which counts as 0 below
    down.div_(_at(x, places0) - out0)
    back = x.new_zeros(x.shape).flatten(2)  # each place may be the largest of several windows
    for share, where in ((up, places), (down, places0)):
        back.scatter_add_(2, where.flatten(2), share.nan_to_num_(0).mul_(grad).flatten(2))
    return back.view(x.shape)


def _back(module: nn.Module, x: Tensor, grad: Tensor) -> Tensor:
    """The module's own backward pass, at x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(module.forward(x), x, grad)[0]


def _largest(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima and where they are."""
    alike: Any = copy.copy(module)
    alike.return_indices = True
    if isinstance(found := alike.forward(x), Tensor):
        raise ValueError(f"DeepLIFT has no rule for {type(module).__name__}, max pooling with a forward of its own")
    return found


def _at(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(2).gather(2, places.flatten(2)).view(places.shape)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in float32 on a GPU, whose default TF32 is too coarse for maps to add up in deep networks."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _out_of_place(modules: list[nn.Module]) -> Iterator[None]:
    """Activations leave their inputs as they are inside the block."""
    changed: list[Any] = [module for module in modules if getattr(module, "inplace", False)]
    try:
        for module in changed:
            module.inplace = False
        yield
    finally:
        for module in changed:
            module.inplace = True


def over_references(model: nn.Module, pool: Tensor, layer: str | None = None, adds_up: bool = True) -> Kernel:
    """Kernel of the mean of DeepLIFT over the references in the pool, (m, c, h, w)."""
    modules = [module for module in leaves(uncompiled(model)) if isinstance(module, (*ELEMENTWISE, *POOLS))]

    def passed(x: Tensor, hook: Callable) -> tuple[Tensor, Tensor]:
        """Logits of x, and what is explained, with a hook for what the modules do."""
        with hooked(modules, hook), layers.explained(model, layer, x) as values:
            logits = model(x)
        return logits, values[0]

    def of_some(references: Tensor, x: Tensor, y: Tensor, apart: bool) -> Tensor:
        """Sum of the maps over references: one pass forward for all of them, and one back for each; with copies of what
        goes into the modules if the network changes it later on."""
        inputs, row, total = [], [0], torch.zeros(())

        def into(given: tuple[Tensor, ...]) -> Tensor:
            return given[0].clone() if apart else given[0]

        with torch.no_grad():
            logits, explained = passed(references, lambda module, given, _: inputs.append((module, into(given))))
        limit, left = max(HALF.get(value.dtype, TOLERANCE) for value in (x, *(x0 for _, x0 in inputs))), iter(inputs)

        def straight(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            same, x0 = next(left)
            assert same is module, "the model takes another way for the image than for the reference"
            return _Line.apply(into(given), [out.detach(), into((out.detach(),))], module, x0, row)

        x = x.detach().requires_grad_()
        scores, values = passed(x, straight)
        scores = scores.gather(1, y[:, None])[:, 0]
        for row[0], reference in enumerate(references):
            at_input, at_layer = torch.autograd.grad(scores.sum(), [x, values], retain_graph=True)
            maps = _full(at_input * (x.detach() - reference))
            if adds_up:
                _check(maps, scores.detach(), logits[row[0]][y], limit)
            total = total + (maps if layer is None else (at_layer * (values - explained[row])).detach())
        return total

    def over_all(x, y, size, apart=False):
        return sum((of_some(some, x, y, apart) for some in pool.to(x.device).split(size)), x.new_zeros(())) / len(pool)

    def kernel(x, y, size):
        with full_precision(), _out_of_place(modules):
            try:
                return over_all(x, y, size)
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
            return over_all(x, y, size, apart=True)  # here, where the failed pass is let go

    return kernel


def _check(maps: Tensor, scores: Tensor, start: Tensor, limit: float) -> None:
    """Raise ValueError unless maps add up to the difference of the target's logits, (n,), but for ``limit``."""
    if scores.isnan().any():
        raise ValueError("the model gives logits that are not numbers; look at its weights")
    error = (maps.flatten(1).sum(1) - (scores - start)).abs()
    scale = maps.flatten(1).abs().sum(1) + scores.abs().max()
    if not (error <= limit * scale).all():
        raise ValueError(
            f"DeepLIFT does not add up for this model: its maps miss the difference of logits by up to "
            f"{error.max().item():.3g}. Some non-linearity is none of its modules, or one without a rule; use "
            f"{', '.join(m.__name__ for m in ELEMENTWISE)} or max pooling, as modules, and batch normalisation"
        )


@method("Shrikumar et al. 2017", forwards=1, backwards=1, needs_modules=True)
def deeplift(model, images, seed, *, baseline: Tensor | None = None, layer: str | None = None, adds_up: bool = True):
    """DeepLIFT contributions by the rescale rule, (n, c, h, w), in logits; signed.

    A map sums to the difference of the target's logit between image and baseline.

    Parameters
    ----------
    baseline : Tensor, optional
        (c, h, w), normalised; default: zero, the data's mean colour.
    layer : str, optional
        Explain the output of this layer, at its own channels and resolution, (n, c', h', w'). A map sums to the
        difference of logits where nothing goes past it.
    adds_up : bool
        False where gradients are changed on purpose, as by :func:`saliency_lib.downsampling.smooth_backward`, and the
        input's maps are not to be held against the difference of logits.

    Raises
    ------
    ValueError
        If a map does not add up, since the model holds a non-linearity that is not a module with a rule; for max
        pooling of a class that changes ``forward``; for an unknown layer, one that is not called just once, or one
        whose output is not (n, c, h, w).
    """
    return over_references(model, baseline_or_zero(baseline, images), layer, adds_up)
