"""The same networks asked otherwise: what a paper leaves unsaid of classes, images and normalisation.

Each takes a method and gives its maps as a method does, ``f(method, model, images, targets, *, seed, batch_size)``.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from saliency_lib import hooks, inference

BATCH = 128  # images whose mean and spread normalise a layer


def predicted_class(method: Callable[..., Tensor], model: nn.Module, images: Tensor, _, **options) -> Tensor:
    """Maps of the class that the network itself says, in place of the true one."""
    return method(model, images, inference.logits(model, images).argmax(1), **options)


def sum_of_logits(
    method: Callable[..., Tensor], model: nn.Module, images: Tensor, targets: Tensor, **options
) -> Tensor:
    """Maps of all logits together."""
    with hooks.hooked([model], lambda _model, _inputs, logits: logits.sum(1, keepdim=True).expand_as(logits)):
        return method(model, images, targets, **options)


def batch_statistics(
    method: Callable[..., Tensor], model: nn.Module, images: Tensor, targets: Tensor, **options
) -> Tensor:
    """Maps with batch normalisation as in training: by mean and spread of up to 128 images together."""
    inference.facts(model, images)  # which the copy has too: asked itself, it would say that a map hangs on its batch
    model = hooks.copied(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
    parts = (rows.tensor_split(-(-len(images) // BATCH)) for rows in (images, targets))
    return torch.cat([method(model, x, y, **options | {"batch_size": len(x)}) for x, y in zip(*parts)])


def training_images(
    method: Callable[..., Tensor], model: nn.Module, images: Tensor, targets: Tensor, **options
) -> Tensor:
    """As usual; the images are those that the networks were trained on."""
    return method(model, images, targets, **options)


OTHERWISE: Mapping[str, Callable[..., Tensor]] = {
    each.__name__.replace("_", " "): each
    for each in (predicted_class, sum_of_logits, batch_statistics, training_images)
}


def asked(method: Callable[..., Tensor], otherwise: str) -> Callable[..., Tensor]:
    """The method, asked in one of the ways of ``OTHERWISE``; itself for an empty word."""
    return partial(OTHERWISE[otherwise], method) if otherwise else method
