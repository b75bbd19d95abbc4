"""Saliency methods, all of one signature: ``f(model, images, targets, *, seed=0, batch_size=None) -> maps``."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 256  # images of 32x32 pixels per pass where no batch size is asked for; fewer for larger ones


@dataclass(frozen=True)
class Method:
    """A registry entry: the function, where it comes from, and what it costs per image in passes.

    Attributes
    ----------
    stochastic : bool
        Whether the map depends on ``seed``.
    signed : bool
        Whether maps have both signs; non-negative maps inflate the SNR.
    """

    function: Callable[..., Tensor]
    citation: str
    forwards: int
    backwards: int
    stochastic: bool = False
    signed: bool = True


def _batches(n: int, images: Tensor, batch_size: int | None):
    size = batch_size or max(1, BATCH * 32**2 // (images.shape[-1] * images.shape[-2]))
    return (slice(i, i + size) for i in range(0, n, size))


def _check(model: nn.Module, images: Tensor, targets: Tensor) -> None:
    if model.training:
        raise ValueError("the model is in training mode, where a map depends on its batch; call model.eval() first")
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(
            f"expected images (n, c, h, w) and one target each, not {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    if not torch.isfinite(images).all():
        raise ValueError("the images hold values that are not finite; look at how they were normalised")


def _gradients(model: nn.Module, images: Tensor, targets: Tensor, batch_size: int | None, score) -> Tensor:
    """Gradient of ``score(logits)[target]`` by the input; parameters take no part and keep their ``.grad``."""
    _check(model, images, targets)
    maps = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    device = next(model.parameters()).device
    for rows in _batches(len(images), images, batch_size):
        x = images[rows].detach().to(device).requires_grad_(True)
        with torch.enable_grad():
            outputs, chosen = model(x), targets[rows].to(device)
            if not 0 <= int(chosen.min()) <= int(chosen.max()) < outputs.shape[1]:
                raise ValueError(
                    f"targets run from {int(targets.min())} to {int(targets.max())}; the model has "
                    f"{outputs.shape[1]} classes, 0 to {outputs.shape[1] - 1}"
                )
            maps[rows] = torch.autograd.grad(score(outputs).gather(1, chosen[:, None]).sum(), x)[0].to(maps)
    return maps


def input_gradient(
    model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """Gradients of the target's logit by the input, (n, c, h, w), logit per unit of normalised input; signed.

    Woerl et al. 2023, Eq. 6 (after Simonyan et al. 2014): no softmax, no absolute value.
    """
    return _gradients(model, images, targets, batch_size, lambda logits: logits)


def probability_gradient(
    model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """Gradients of the target's softmax probability by the input, (n, c, h, w); they vanish at confident outputs.

    Woerl et al. 2023, Eq. 7-8, which give it as the reason to use logits.
    """
    return _gradients(model, images, targets, batch_size, lambda logits: logits.softmax(1))


METHODS: dict[str, Method] = {
    "input_gradient": Method(input_gradient, "Simonyan et al. 2014; Woerl et al. 2023, Eq. 6", 1, 1),
    "probability_gradient": Method(probability_gradient, "Woerl et al. 2023, Eq. 7-8", 1, 1),
}


def attribute(
    method: str | Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Maps, (n, c, h, w) float32, by a method of the registry or any function of the same signature."""
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; one of {sorted(METHODS)}")
        method = METHODS[method].function
    return method(model, images, targets, seed=seed, batch_size=batch_size)
