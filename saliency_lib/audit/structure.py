"""What maps owe to the architecture: random weights, and the pattern of strided convolutions."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib import similarity
from saliency_lib.attribution import attribute
from saliency_lib.downsampling import strided_convs
from saliency_lib.hooks import bare
from saliency_lib.quality import checkerboard_power
from saliency_lib.randomization import cascading, own_initialiser, truncated_normal
from saliency_lib.runtime.seeds import LAYERS, derive

MEASURES = ("absolute rank correlation", "rank correlation")


def _draw(module: nn.Module) -> None:
    try:
        own_initialiser(module)
    except ValueError:
        truncated_normal(module)


def against_random(
    method: str | Callable[..., Tensor],
    networks: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    runs: int = 4,
    seed: int = 0,
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Similarity of maps to the trained network's as its layers are redrawn from the logits down (Adebayo et al. 2018).

    Every run is a network of its own with draws of its own; of fewer than three networks, the first with new draws.
    Modules without an initialiser of their own are drawn from a truncated normal distribution.

    Returns
    -------
    layers : list of str
        What was redrawn last; all before it are redrawn as well.
    found : dict
        By measure, (runs, layers), means over images.
    """
    names, rows = [], {measure: [] for measure in MEASURES}
    models = networks[:runs] if len(networks) > 2 else [networks[0]] * runs
    for run, model in enumerate(models):
        own = attribute(method, model, images, targets, seed)
        names, steps = [], []
        for name, broken in cascading(model, derive(seed, LAYERS, run), images, draw=_draw):
            compared = similarity.compare(own, attribute(method, broken, images, targets, seed), MEASURES)
            names.append(name)
            steps.append([compared[measure].mean() for measure in MEASURES])
        for measure, values in zip(MEASURES, np.transpose(steps)):
            rows[measure].append(values)
    return names, {measure: np.stack(values) for measure, values in rows.items()}


def checkerboard(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    """Power of period two in the gradient that each convolution of stride two passes back, relative to any period's.

    Of the target's logit, by the convolution's input; 1 is white noise's, see
    :func:`saliency_lib.quality.checkerboard_power` (Herdt et al. 2024, section 3.1). One value per image, by the name
    of the convolution, or of those that share their input; inputs of less than 2 x 2 pixels are left out. Other strides
    print other periods, and are not measured.
    """
    names = [conv.name for conv in strided_convs(model, ["input"], images) if set(conv.stride) <= {1, 2}]
    copied, caught = bare(model), {}
    for name in names:
        copied.get_submodule(name).register_forward_pre_hook(
            lambda _module, inputs, name=name: caught.__setitem__(name, inputs[0])
        )
    with torch.enable_grad():
        outputs = copied(images.detach().clone().requires_grad_().clone())
        chosen = outputs.gather(1, targets.to(outputs.device)[:, None]).sum()
    together = {}  # convolutions of one input, as a block's and its shortcut's
    for name in names:
        if min(caught[name].shape[-2:]) > 1:
            together.setdefault(id(caught[name]), []).append(name)
    if not together:
        return {}
    gradients = torch.autograd.grad(chosen, [caught[shared[0]] for shared in together.values()])
    return {
        " and ".join(shared): checkerboard_power(gradient).cpu().numpy()
        for shared, gradient in zip(together.values(), gradients)
    }
