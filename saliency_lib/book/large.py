"""The cascade of a large network of torchvision, by methods that its functional ReLUs allow."""

import warnings
from functools import partial

import numpy as np
from torch import Tensor, nn
from torchvision.models import get_model

from saliency_lib import attribution, data, inference, randomization
from saliency_lib.attribution.method import Function
from saliency_lib.audit.pictures import normalised
from saliency_lib.quality import sanity
from saliency_lib.runtime.seeds import derive, seeded
from saliency_lib.training import default_device

BEFORE, AFTER = 77, 78  # purposes of seeds


def network(name: str, weights: str | None, seed: int = 0) -> nn.Module | None:
    """A network of torchvision in eval mode; without ``weights`` they are drawn from the seed.

    Gives None, with a warning, where weights cannot be fetched.
    """
    try:
        with seeded(seed):
            return get_model(name, weights=weights).eval().to(default_device())
    except OSError as error:
        warnings.warn(f"no weights of {name}: {error}", stacklevel=2)
        return None


def images(dataset: str, n: int, size: int) -> Tensor:
    """Validation images, (n, 3, size, size), normalised as ImageNet's are."""
    values = data.load(dataset, "val", n=n, size=size).images.float() / 255
    return normalised(values, None, None).to(default_device())


def methods(layer: str, n_samples: int, n_steps: int) -> dict[str, Function]:
    """Methods by name that need no modules for ReLUs; GradCAM, with its ReLU, explains ``layer``."""
    return {
        "input_gradient": attribution.input_gradient,
        "gradient_x_input": attribution.gradient_x_input,
        "smoothgrad": partial(attribution.smoothgrad, n_samples=n_samples),
        "integrated_gradients": partial(attribution.integrated_gradients, n_steps=n_steps),
        "gradcam": partial(attribution.gradcam, layer=layer, relu=True),
    }


def cascade(model: nn.Module, x: Tensor, n_samples: int, n_steps: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Similarity of maps of the network's own classes with those of its copies, (blocks, images), by method and
    measure. GradCAM explains the block below the logits; blocks are PyTorch's own draws."""
    blocks = dict(randomization.cascading(model, seed, x))
    known = methods(list(blocks)[1], n_samples, n_steps)
    targets = inference.logits(model, x).argmax(1)
    before = sanity.maps_of(known, [model], x, targets, [derive(seed, BEFORE)])
    copies = [list(blocks.values())]
    found = sanity.along(known, before, copies, x, targets, lambda _, step: derive(seed, AFTER, step - 1))
    return {name: {measure: values[0] for measure, values in of.items()} for name, of in found.items()}
