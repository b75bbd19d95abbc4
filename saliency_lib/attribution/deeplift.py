"""DeepLIFT's rescale rule: every non-linearity is replaced by the straight line between reference and image.

Not captum's: in version 0.9 its rule for max pooling after a ReLU loses part of the difference (tests/test_deeplift.py
shows it), and it sends the reference through the network once for every image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.attribution import layers
from saliency_lib.attribution.integrated import baseline_or_zero
from saliency_lib.attribution.method import Kernel, method
from saliency_lib.hooks import hooked, leaves

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.GELU, nn.SiLU)
EPSILON = 1e-6  # differences of inputs below it take the derivative in place of a quotient
CACHED = 2**18  # values of a tensor that are worked on at once
# Of the sum of |map| and a hundredth of the logits: rounding stays far below it, a missed non-linearity far above.
TOLERANCE = 1e-3


def _derivative(module: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(module.forward(x).sum(), x)[0]


class _ReLULine(torch.autograd.Function):
    """The value in ``box``, and for its gradient by x the slope (relu(x) - relu(x0)) / (x - x0), taken without a
    difference that could cancel; where x = x0, the derivative.

    For x0 > 0 the slope is x0 / (x0 - min(x, 0)), else out / (out - x0); in one: (x0 or out) / ((out - (x or 0)) +
    |x0|), where out - x is exact. The steps wait for memory, not for arithmetic: so a few images at a time on a CPU, as
    its cache holds. The value comes in a list, or autograd would take it for a view of an input, and forbid the network
    to change it in place.
    """

    @staticmethod
    def forward(ctx, x, box, x0):
        ctx.save_for_backward(x, x0)
        return box[0]

    @staticmethod
    def backward(ctx, grad):
        x, x0 = ctx.saved_tensors
        above, below, top = (x0 > 0).to(x), (x0 <= 0).to(x), x0.clamp(min=0)
        size, back = x0.abs().clamp_(min=torch.finfo(x.dtype).tiny), torch.empty_like(x)
        step = len(x) if x.is_cuda else max(1, CACHED // x[0].numel())
        for rows in (slice(i, i + step) for i in range(0, len(x), step)):
            out = x[rows].clamp(min=0)
            bottom = torch.addcmul(out, above, x[rows], value=-1).add_(size)
            torch.mul(grad[rows], torch.addcmul(top, below, out).div_(bottom), out=back[rows])
        return back, None, None


class _Sloped(torch.autograd.Function):
    """The value in ``box`` with the gradient ``slope`` by x."""

    @staticmethod
    def forward(ctx, x, box, slope):
        ctx.save_for_backward(slope)
        return box[0]

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


def _line(module: nn.Module, x: Tensor, out: Tensor, x0: Tensor, out0: Tensor) -> Tensor:
    """``out``, but with the slope of the line from (x0, out0) to (x, out) for its gradient, or the derivative where the
    two are nearly one point."""
    if isinstance(module, nn.ReLU):
        return _ReLULine.apply(x, [out.detach()], x0)
    with torch.no_grad():
        run = x - x0
        near = run.abs() < EPSILON
        slopes = (out - out0).div_(run)
        if near.any():
            slopes = torch.where(near, _derivative(module, x), slopes)
    return _Sloped.apply(x, [out.detach()], slopes)


class _Scattered(torch.autograd.Function):
    """The value in ``box`` with the gradients ``up`` and ``down`` by the pixels of x at ``places`` and ``places0``."""

    @staticmethod
    def forward(ctx, x, box, module, *slopes_and_places):
        ctx.save_for_backward(x, *slopes_and_places)
        ctx.module = module
        return box[0]

    @staticmethod
    def backward(ctx, grad):
        x, up, down, places, places0 = ctx.saved_tensors
        back = _pool_backward(ctx.module, grad * up, x, places)
        return back.add_(_pool_backward(ctx.module, grad * down, x, places0)), *[None] * 6


def _pool_backward(module: nn.Module, grad: Tensor, x: Tensor, places: Tensor) -> Tensor:
    """What max pooling's own backward pass does, at any places: adds up where windows overlap."""
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return torch.ops.aten.adaptive_max_pool2d_backward(grad, x, places)
    pair = [2 * [v] if isinstance(v, int) else list(v) for v in (module.kernel_size, module.stride, module.padding)]
    dilation = 2 * [module.dilation] if isinstance(module.dilation, int) else list(module.dilation)
    return torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *pair, dilation, module.ceil_mode, places)


def _pool_line(module: nn.Module, x: Tensor, out: Tensor, x0: Tensor, out0: Tensor) -> Tensor:
    """Of a window's difference, what raises the maximum goes to the image's largest pixel, the rest to the reference's
    largest (as in the authors' code); windows may overlap."""
    with torch.no_grad():
        places, places0 = _argmax(module, x), _argmax(module, x0).expand_as(out)
        top = torch.maximum(out, out0)
        up, down = top - out0, out - top
        up.div_((out - _at(x0.expand_as(x), places)).masked_fill_(up == 0, 1.0))
        down.div_((_at(x, places0) - out0).masked_fill_(down == 0, 1.0))
    return _Scattered.apply(x, [out.detach()], module, up, down, places, places0)


def _at(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(2).gather(2, places.flatten(2)).view(places.shape)


def _argmax(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return F.adaptive_max_pool2d(x, module.output_size, return_indices=True)[1]
    return F.max_pool2d(
        x, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )[1]


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in float32 on a GPU, whose default TF32 is too coarse for maps to add up in deep networks."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _Rescaled:
    """The references' way through the network, and the network with straight lines from there; a context manager."""

    def __init__(self, model: nn.Module, references: Tensor, layer: str | None):
        self.model, self.layer = model, layer
        self.modules = [m for m in leaves(model) if isinstance(m, (*ELEMENTWISE, nn.MaxPool2d, nn.AdaptiveMaxPool2d))]
        self.inputs: list[Tensor] = []
        self.passed: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._handles = [m.register_forward_pre_hook(self._before) for m in self.modules]
        try:
            with torch.no_grad(), self._passing(references, self._record) as values:
                self.output = model(references)
            self.reference = values[0]
        except BaseException:
            self.__exit__()
            raise

    def _before(self, module: nn.Module, inputs: tuple[Tensor, ...]):
        self.inputs.append(inputs[0])
        return (inputs[0].clone(),) if getattr(module, "inplace", False) else None

    def _record(self, module: nn.Module, _inputs, out: Tensor) -> None:
        self.passed.append((module, self.inputs.pop(), out.clone()))

    def _replace(self, module: nn.Module, _inputs, out: Tensor) -> Tensor:
        same, x0, out0 = next(self.left)
        assert same is module, "the model takes another way for the image than for the reference"
        rule, one = _line if isinstance(module, ELEMENTWISE) else _pool_line, slice(self.chosen, self.chosen + 1)
        return rule(module, self.inputs.pop(), out, x0[one], out0[one])

    @contextmanager
    def _passing(self, x: Tensor, hook: Callable) -> Iterator[list[Tensor]]:
        with full_precision(), hooked(self.modules, hook), layers.explained(self.model, self.layer, x) as values:
            yield values

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()

    def __call__(self, x: Tensor, chosen: int) -> Tensor:
        """Logits of x, with straight lines from the chosen reference; what is explained is then in ``kept``."""
        self.chosen, self.left = chosen, iter(self.passed)
        with self._passing(x, self._replace) as values:
            logits = self.model(x)
        self.kept = values[0]
        return logits


def _multiplied(rescaled: _Rescaled, x: Tensor, y: Tensor, references: Tensor, k: int, adds_up: bool) -> Tensor:
    """Multipliers times differences from reference k, checked to add up to the difference of logits at the input."""
    x = x.detach().requires_grad_()
    scores = rescaled(x, k).gather(1, y[:, None])
    with full_precision():
        at_input, at_layer = torch.autograd.grad(scores.sum(), [x, rescaled.kept])
    maps = at_input * (x.detach() - references[k])
    difference = (scores.detach() - rescaled.output[k, y][:, None])[:, 0]
    error = (maps.flatten(1).sum(1) - difference).abs()
    scale = maps.flatten(1).abs().sum(1) + 0.01 * scores.detach().abs().max()
    if adds_up and not (error <= TOLERANCE * scale).all():
        raise ValueError(
            f"DeepLIFT does not add up for this model: its maps miss the difference of logits by up to "
            f"{error.max().item():.3g}. Some non-linearity is none of its modules, or one without a rule; use "
            f"{', '.join(m.__name__ for m in ELEMENTWISE)} or max pooling, as modules, and batch normalisation"
        )
    return (at_layer * (rescaled.kept - rescaled.reference[k]) if rescaled.layer else maps).detach()


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
        If a map does not add up, since the model holds a non-linearity that is not a module with a rule; for an
        unknown layer, one that is not called just once, or one whose output is not (n, c, h, w).
    """
    return over_references(model, baseline_or_zero(baseline, images), layer, adds_up)


def over_references(model: nn.Module, pool: Tensor, layer: str | None = None, adds_up: bool = True) -> Kernel:
    """Kernel of the mean of DeepLIFT over the references in the pool, (m, c, h, w)."""

    def kernel(x, y, size):
        total = 0
        for part in pool.to(x.device, memory_format=torch.channels_last).split(size):
            with _Rescaled(model, part, layer) as rescaled:
                total = total + sum(_multiplied(rescaled, x, y, part, k, adds_up) for k in range(len(part)))
        return total / len(pool)

    return kernel
