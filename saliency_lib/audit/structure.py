"""What maps owe to the architecture: random weights, and the pattern of strided convolutions."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib import randomization, similarity
from saliency_lib.attribution import attribute
from saliency_lib.downsampling import strided_convs
from saliency_lib.hooks import graph, hooked
from saliency_lib.inference import check, gives_logits
from saliency_lib.quality import checkerboard_power
from saliency_lib.runtime.seeds import LAYERS, derive

MEASURE = "absolute rank correlation"


def _draw(module: nn.Module) -> None:
    try:
        randomization.own_initialiser(module)
    except ValueError:
        randomization.truncated_normal(module)


def against_random(
    method: str | Callable[..., Tensor],
    networks: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    runs: int = 4,
    n_layers: int | None = None,
    seed: int = 0,
) -> tuple[list[str], np.ndarray]:
    """Likeness of maps to the trained network's as its layers are redrawn from the logits down (Adebayo et al. 2018).

    Every run is a network of its own with draws of its own; of fewer than three networks, the first with new draws. A
    stochastic method draws anew for every network, as it does for two trained ones.
    Modules without an initialiser of their own are drawn from a truncated normal distribution. Maps are compared after
    every layer, or after ``n_layers`` of them, evenly spread, the last among them.

    Returns
    -------
    layers : list of str
        What was redrawn last; all before it are redrawn as well.
    likeness : array
        (runs, layers), rank correlation of absolute values, mean over images.

    Raises
    ------
    ValueError
        If a redrawn network's maps are constant, each of them, so that they cannot be like anything.
    """
    rows = []
    last = len(randomization.layers(networks[0], images)) - 1
    compared = set(np.linspace(last, 0, n_layers or last + 1).round().astype(int))
    for run, model in enumerate(networks[:runs] if len(networks) > 2 else [networks[0]] * runs):
        own, row = attribute(method, model, images, targets, seed), {}
        steps = randomization.cascading(model, derive(seed, LAYERS, run), images, draw=_draw)
        for k, (name, broken) in ((k, step) for k, step in enumerate(steps) if k in compared):
            maps = attribute(method, broken, images, targets, derive(seed, LAYERS, run, k))
            if maps.flatten(1).amax(1).eq(maps.flatten(1).amin(1)).all():
                raise ValueError(f"with {name} redrawn every map is constant, which says nothing of what was learned")
            row[name] = similarity.compare(own, maps, [MEASURE])[MEASURE].mean()
        rows.append(row)
    return list(rows[0]), np.array([list(row.values()) for row in rows])


def checkerboard(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    """Power of period two in the gradient that each convolution of stride two passes back, relative to any period's.

    Of the target's logit, by the convolution's input; 1 is white noise's, see
    :func:`saliency_lib.quality.checkerboard_power` (Herdt et al. 2024, section 3.1). One value per image, by the name
    of the convolution, or of those that share their input; inputs of less than 2 x 2 pixels are left out, as are those
    on which the logits do not depend. Other strides print other periods, and are not measured.

    Raises
    ------
    ValueError
        For a model in training mode, targets that it lacks, and if strided convolutions are functions that ``forward``
        calls, and none is a module.
    """
    check(model, images, targets)
    convolutions = [c.name for c in strided_convs(model, ["input"], images) if set(c.stride) <= {1, 2}]
    names = {model.get_submodule(name): name for name in convolutions}
    taken = {}  # an input, and the convolutions that take it, as a block's and its shortcut's

    calls: Counter[str] = Counter()

    def note(convolution: nn.Module, inputs: tuple[Tensor, ...], _output) -> None:
        name = names[convolution]
        calls[name] += 1
        if min(inputs[0].shape[-2:]) > 1:
            taken.setdefault(inputs[0], []).append(f"{name}, call {calls[name]}" if calls[name] > 1 else name)

    with hooked(list(names), note), gives_logits(model, targets), torch.enable_grad():
        outputs = model(images.detach().clone().requires_grad_())
        chosen = outputs.gather(1, targets.to(outputs.device)[:, None]).sum()
    strided = (node for node in graph(chosen) if 2 in getattr(node, "_saved_stride", ()))
    if not names and any("Convolution" in n.name() and not getattr(n, "_saved_transposed", False) for n in strided):
        raise ValueError("its strided convolutions are functions that forward calls, no modules, and are not measured")
    gradients = torch.autograd.grad(chosen, list(taken), allow_unused=True) if taken else ()
    return {
        " and ".join(sharing): checkerboard_power(gradient).cpu().numpy()
        for sharing, gradient in zip(taken.values(), gradients)
        if gradient is not None
    }
