"""Strided convolutions that print on a layer's maps, and hooks that average over shifts (Herdt et al. 2024)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saliency_lib.attribution.grids import first_of, with_first
from saliency_lib.attribution.layers import find, stages
from saliency_lib.hooks import bare, device_of, hooked, probe

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
INPUT = "input"


class StridedConv(NamedTuple):
    """A convolution that is touched: its name, the sides of its kernel and its strides, both (vertical, horizontal)."""

    name: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]


def _cut(_module, _inputs, out: Any) -> Any:
    """A layer's output as if it were the network's input."""
    return with_first(out, first_of(out).detach().requires_grad_().clone())


def strided_convs(
    model: nn.Module, layers: Sequence[str] | None = None, images: Tensor | None = None
) -> list[StridedConv]:
    """Strided convolutions between the output of an explained layer and the logits, in the order of one pass.

    Those before every explained layer cannot print on its maps. So the first of a ResNet's is left out, as in section
    3.1, and shortcuts are among them. Found by tracing a pass, so a layer that is not on the way is not listed.

    Parameters
    ----------
    layers : list of str, optional
        The layers to be explained, ``"input"`` for the image itself, behind which all lie; default:
        :func:`saliency_lib.attribution.layers.stages`.
    images : Tensor, optional
        (n, c, h, w), for the pass; default: a blank picture of a size that the model takes.

    Raises
    ------
    ValueError
        For an unknown layer, a model whose stages are unknown, or a strided convolution in one or three dimensions.
    """
    copied = bare(model).requires_grad_(False)
    names = stages(copied) if layers is None else list(layers)
    explained = [find(copied, name) for name in names if name != INPUT]
    if not names:
        raise ValueError(
            f"the stages of {type(model).__name__} are unknown; pass layers=, the names of those explained"
        )
    x = probe(copied) if images is None else images[:1].detach().to(device_of(copied, images))
    x = x.clone().requires_grad_(INPUT in names)
    found = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        if not inputs:
            raise ValueError(f"{name!r} is called by keyword, which hooks do not see; call it as self.{name}(x)")
        if inputs[0].requires_grad:
            found[name] = module

    for name, module in copied.named_modules():
        if isinstance(module, CONVOLUTIONS) and max(module.stride) > 1:
            module.register_forward_pre_hook(lambda m, inputs, name=name: note(m, inputs, name))
    with torch.enable_grad(), hooked(explained, _cut):
        copied(x.clone())  # which may be changed in place
    convs = []
    for name, module in found.items():
        if not isinstance(module, nn.Conv2d):
            raise ValueError(f"{name!r} is a {type(module).__name__}; only strided Conv2d can be smoothed")
        convs.append(StridedConv(name, tuple(module.kernel_size), tuple(module.stride)))
    return convs


def blocks(model: nn.Module, before_strides: bool = False) -> list[str]:
    """Blocks of a residual network's stages, lowest first; or those alone on whose maps strided convolutions print."""
    names = [f"{stage}.{name}" for stage in stages(model) for name, _ in model.get_submodule(stage).named_children()]
    return [name for name in names if strided_convs(model, [name])] if before_strides else names


def touched(model: nn.Module, layers: Sequence[str] | None, images: Tensor | None) -> dict[nn.Module, StridedConv]:
    """The modules of :func:`strided_convs`, but ValueError where there are none."""
    convs = strided_convs(model, layers, images)
    if not convs:
        where = "its stages" if layers is None else list(layers)
        raise ValueError(
            f"{type(model).__name__} has no strided convolution behind {where}: there is nothing to smooth"
        )
    return {model.get_submodule(conv.name): conv for conv in convs}


def mean_of_rolls(x: Tensor, stride: Sequence[int], back: bool = False) -> Tensor:
    """Mean of x (n, c, h, w) over circular shifts by 0 to stride - 1 pixels, down and right, or with ``back`` up and
    left; of four for a stride of two."""
    for dim, steps in zip((2, 3), stride):
        rolls = [x.roll(-k if back else k, dim) for k in range(steps)]
        x = reduce(torch.add, rolls) / steps
    return x


@contextmanager
def smooth_backward(
    model: nn.Module, layers: Sequence[str] | None = None, images: Tensor | None = None, *, centred: bool = False
) -> Iterator[nn.Module]:
    """Inside the block, gradients that strided convolutions return are means over circular shifts; logits stay.

    By default those alone behind the stages, without the first of a ResNet: for maps of the input pass ``["input"]``.
    Herdt et al. 2024, section 3.1: four shifts, by (h, w) in {0, 1} x {0, 1}, for a stride of two; here by 0 to s - 1
    for a stride of s. Kernel, dilation, groups and padding do not matter. The shifts go one way, so that every such
    layer **moves** the map by (s - 1) / 2 pixels of its input down and right.

    Parameters
    ----------
    layers, images
        As in :func:`strided_convs`, which lists what is touched.
    centred : bool
        Average over the shifts of both ways, which moves nothing; not in the paper.

    Raises
    ------
    ValueError
        As :func:`strided_convs`, and where nothing is touched.
    """

    def smooth(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].view_as(inputs[0])
        if x.requires_grad:
            ways = (False, True) if centred else (False,)
            x.register_hook(lambda grad: sum(mean_of_rolls(grad, module.stride, back) for back in ways) / len(ways))
        return (x, *inputs[1:])

    with hooked(list(touched(model, layers, images)), smooth, before=True):
        yield model


@contextmanager
def smooth_forward(
    model: nn.Module, layers: Sequence[str] | None = None, images: Tensor | None = None
) -> Iterator[nn.Module]:
    """Inside the block, outputs of strided convolutions are means over circular shifts of their inputs.

    Herdt et al. 2024, section 3.1: four passes with shifted inputs. A convolution is affine, so one pass with the mean
    of the shifted inputs is the same. Logits change. Parameters and errors as in :func:`smooth_backward`.
    """

    def shift(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (mean_of_rolls(inputs[0], module.stride), *inputs[1:])

    with hooked(list(touched(model, layers, images)), shift, before=True):
        yield model
