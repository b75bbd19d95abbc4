"""What stands around every pass of a model: its input is checked, cut into batches that fit, and moved to it."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saliency_lib.hooks import device_of, hooked, known, leaves
from saliency_lib.outputs import HALF, chances, entry, how_read, of_output
from saliency_lib.runtime.machine import free_memory

PIXELS = {"cpu": 128 * 32**2, "cuda": 2048 * 32**2}  # per pass, where memory allows; measured on CPU (bench_methods)
COPIES = 3  # of all activations: what is saved for the backward pass, its gradients, and what libraries hold meanwhile
LEAST = 5e-3  # of the largest logit, by which two may differ: far above rounding, in TF32 too; more in half precision
UNREACHED = ("not have been used in the graph", "does not require grad")  # in what autograd says of a cut-off input
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # which do the same in either mode


def check(model: nn.Module, images: Tensor, targets: Tensor | None = None, batch_size: int | None = None) -> None:
    """Raise ValueError for a model in training mode, and for tensors of other shapes, types or values than expected."""
    if any(module.training for module in model.modules() if type(module) not in CONTAINERS):
        raise ValueError("the model is in training mode, where a map depends on its batch; call model.eval() first")
    tensors = [images] if targets is None else [images, targets]
    if kinds := [type(tensor).__name__ for tensor in tensors if not isinstance(tensor, Tensor)]:
        raise ValueError(f"images and targets are tensors, (n, c, h, w) and (n,), not {' and '.join(kinds)}")
    if images.ndim != 4 or not len(images) or (targets is not None and targets.shape != images.shape[:1]):
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"expected images (n, c, h, w), at least one, and one target each, not {shapes}")
    if targets is not None and targets.dtype != torch.int64:
        raise ValueError(f"targets are class numbers, int64, not {targets.dtype}; convert them with targets.long()")
    dtype = next((p.dtype for p in model.parameters()), images.dtype)
    if images.dtype != dtype or not images.is_floating_point():
        raise ValueError(f"the images are {images.dtype}, the model is {dtype}; convert one of them, with .to(dtype)")
    if not torch.isfinite(images).all():
        raise ValueError("the images hold values that are not finite; look at how they were normalised")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"a batch holds at least one image, not batch_size={batch_size}")
    known(model)["shape"] = images.shape[1:]


class Facts(NamedTuple):
    """What has to be known of a model before its passes: bytes of a forward and backward pass per image, estimated from
    the activations of one, and the memory layout in which it runs."""

    memory: int
    layout: torch.memory_format


def facts(model: nn.Module, images: Tensor) -> Facts:
    """Facts of a model in eval mode, from three passes of one or two images, once for it and its copies.

    ValueError where the logits of an image are others in a second pass, or beside another image: no map would be about
    it.
    """
    device = device_of(model, images)
    kind, seen = (*images.shape[1:], images.dtype, device), known(model)
    if kind not in seen:
        seen[kind] = _looked_at(model, images[:1].detach().to(device))
    return seen[kind]


def _looked_at(model: nn.Module, image: Tensor) -> Facts:
    sizes, given, pair = [], [], torch.cat([image, image.flip(-1) / 2])

    def note(_module, _inputs, out) -> None:
        if isinstance(out, Tensor):
            sizes.append(out.numel() * out.element_size())

    def passed(images: Tensor) -> Tensor:
        keep = hooked([model], lambda _module, _inputs, out: given.append(out))
        with torch.no_grad(), keep, gives_logits(model, None, layout):
            return model(images)[:1].double()

    for layout in (torch.channels_last, torch.contiguous_format):
        sizes.clear()
        try:
            with hooked(leaves(model), note):
                alone = passed(image)
            beside = passed(pair)
            break
        except RuntimeError as error:
            if layout is torch.contiguous_format or "view size is not compatible" not in str(error):
                raise  # and is no network that flattens with .view
    if said := how_read(given[0]):
        warnings.warn(f"{type(model).__name__} gives {said}", stacklevel=4)
    limit = HALF.get(entry(given[0]).dtype, LEAST) * alone.abs().max()
    bytes_per_image = COPIES * (sum(sizes) + 2 * image.numel() * image.element_size())
    for other, when, cause in (
        (passed(image), "in a second pass", "is there F.dropout without training=self.training?"),
        (beside, "beside another image", "is there batch normalisation without running statistics?"),
    ):
        if (other - alone).abs().max() > limit:
            raise ValueError(f"{type(model).__name__} gives an image other logits {when}, also in eval mode; {cause}")
    return Facts(bytes_per_image, layout)


def fitting(model: nn.Module, images: Tensor) -> int:
    """Images per pass: as many as are fast, and no more than fill half of the free memory."""
    device = device_of(model, images)
    fast = PIXELS.get(device.type, PIXELS["cpu"]) // (images.shape[-1] * images.shape[-2])
    fits = free_memory(device) // 2 // max(1, facts(model, images).memory)
    return max(1, min(fast, fits))


@contextmanager
def gives_logits(
    model: nn.Module, targets: Tensor | None, layout: torch.memory_format = torch.preserve_format
) -> Iterator[None]:
    """Inside the block a pass of the model gives its logits, (n, classes), and works on a copy of its images in a
    memory layout, so that it may change them in place.

    Raises ValueError at the first pass if there are no logits, or none of a target's class.
    """
    seen = []

    def copied(_module, inputs: tuple) -> tuple:
        return tuple(x.clone(memory_format=layout) if isinstance(x, Tensor) and x.ndim == 4 else x for x in inputs)

    def look(_module, _inputs, output: Any) -> Tensor:
        outputs = of_output(output)
        if seen:
            return outputs
        seen.append(True)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            what = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"the model gives {what}; expected logits (n, classes)")
        low, high = (0, 0) if targets is None else (int(targets.min()), int(targets.max()))
        if not 0 <= low <= high < outputs.shape[1]:
            raise ValueError(
                f"targets run from {low} to {high}; the model has {outputs.shape[1]} classes, 0 to "
                f"{outputs.shape[1] - 1}"
            )
        return outputs

    with hooked([model], copied, before=True), hooked([model], look):
        yield


def in_batches(
    kernel: Callable[[Tensor, Tensor | None, int], Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    batch_size: int | None = None,
    copies: int = 1,
) -> Tensor:
    """What a kernel that sees a few images at a time makes of all of them, float32 on the images' device.

    Parameters
    ----------
    kernel : callable
        ``kernel(x, y, size)`` gives maps of images x, (m, c, h, w), on the model's device; ``size`` is the most images
        that it may send through the model at once.
    batch_size : int, optional
        Images per pass; default: from the free memory.
    copies : int
        Images that the kernel makes of each one; it gets no more of them than ``size / copies``, but at least one.
    """
    check(model, images, targets, batch_size)
    layout = facts(model, images).layout
    size = batch_size or fitting(model, images)
    step, device, found = max(1, size // copies), device_of(model, images), torch.empty(0)
    with gives_logits(model, targets, layout), torch.enable_grad():
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            x = images[rows].detach().to(device)
            part = _reached(kernel, x, None if targets is None else targets[rows].to(device), size).detach()
            if start == 0:
                found = torch.empty(len(images), *part.shape[1:], dtype=torch.float32, device=images.device)
            found[rows] = part
    return found


def _reached(kernel: Callable, x: Tensor, y: Tensor | None, size: int) -> Tensor:
    """The kernel's maps; ValueError where no gradient comes back to what is explained."""
    try:
        return kernel(x, y, size)
    except RuntimeError as error:
        made, cut_off = "nference tensor" in str(error), any(words in str(error) for words in UNREACHED)
        if not (made or cut_off):
            raise
        cut = "is part of forward under no_grad, or detached?"
        mode = "leave torch.inference_mode(), and clone images and weights that were made in it"
        raise ValueError(
            f"no gradient reaches the input; {mode if made or torch.is_inference_mode_enabled() else cut}"
        ) from error


def logits(model: nn.Module, images: Tensor, batch_size: int | None = None, targets: Tensor | None = None) -> Tensor:
    """Logits, (n, classes) float32 on the images' device; no gradients. Raises ValueError as :func:`check` does, and
    for ``targets``, (n,), that are no classes of the model."""

    def kernel(x: Tensor, _y, _size: int) -> Tensor:
        with torch.no_grad():
            return model(x)

    return in_batches(kernel, model, images, targets, batch_size)


def scores(model: nn.Module, images: Tensor, targets: Tensor, batch_size: int | None = None) -> Tensor:
    """Logit of each image's target, (n,) float32 on the images' device; no gradients."""
    return logits(model, images, batch_size, targets).gather(1, targets.to(images.device)[:, None])[:, 0]


def log_odds(model: nn.Module, images: Tensor, targets: Tensor, batch_size: int | None = None) -> Tensor:
    """Log-odds of each image's target, (n,) float64: its logit less the log of the sum of the others' exponentials.

    Their sigmoid is the softmax probability, which rounds to 0 and 1 where they do not.
    """
    z, targets = logits(model, images, batch_size, targets).double(), targets.to(images.device)[:, None]
    chances(z[:1])  # or there is nothing to have odds against
    return z.gather(1, targets)[:, 0] - z.scatter(1, targets, -torch.inf).logsumexp(1)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None = None) -> float:
    """Share of images, in [0, 1], whose label, (n,) int64, has the largest logit."""
    check(model, images, labels, batch_size)
    return (logits(model, images, batch_size).argmax(1) == labels).double().mean().item()


def best_known(models: Sequence[nn.Module], images: Tensor, labels: Tensor, n: int) -> Tensor:
    """Places, (n,) int64, of the images that most of the models get right; of equals, those that come first."""
    check(models[0], images, labels)
    right = torch.stack([logits(model, images).argmax(1) == labels for model in models]).sum(0)
    return right.argsort(descending=True, stable=True)[:n]


def relative_drop(own: float, labels: Tensor) -> Callable[[Sequence[float]], Tensor]:
    """Accuracies as drops, (n,) float64: 0 at the network's own, 1 at guessing; ValueError for no better than that."""
    classes = len(labels.unique())
    if classes < 2 or own <= (chance := 1 / classes):
        what = f"an accuracy of {own:.3g} on {classes} classes leaves nothing to lose against guessing"
        raise ValueError(f"{what}; take images that the network knows, of several classes")
    return lambda found: 1 - (torch.tensor(found, dtype=torch.float64) - chance) / (own - chance)
