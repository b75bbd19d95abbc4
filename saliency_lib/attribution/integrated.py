"""Integrated gradients: along the straight path from a baseline to the image."""

from torch import Tensor

from saliency_lib.attribution import layers
from saliency_lib.attribution.baselines import baseline_or_zero
from saliency_lib.attribution.grids import first_of, with_first
from saliency_lib.attribution.method import method
from saliency_lib.hooks import hooked

QUADRATURES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle")  # captum's trapezoids add up to less


@method("Sundararajan et al. 2017", forwards=50, backwards=50)
def integrated_gradients(
    model,
    images,
    seed,
    *,
    n_steps: int = 50,
    quadrature: str = "gausslegendre",
    baseline: Tensor | None = None,
    layer: str | None = None,
):
    """Input minus baseline, times the mean gradient on the straight path between them, (n, c, h, w), in logits; signed.

    The sum of a map is the difference of the target's logit between image and baseline, but for the error of the
    quadrature. A batch is of images with all their steps; one image's steps are spread over several passes where they
    do not fit.

    Parameters
    ----------
    quadrature : str
        One of ``QUADRATURES``.
    baseline : Tensor, optional
        (c, h, w), normalised; default: zero, the data's mean colour.
    layer : str, optional
        Explain the output of this layer, at its own channels and resolution, (n, c', h', w'), on the straight path
        between its values for baseline and image. A map sums to the difference of logits where nothing goes past it.
    """
    from captum.attr import IntegratedGradients, LayerIntegratedGradients  # here, since it takes half a second

    if quadrature not in QUADRATURES:
        raise ValueError(f"unknown quadrature {quadrature!r}; one of {sorted(QUADRATURES)}")
    if n_steps < 2:
        raise ValueError(f"integrated gradients need at least two steps, not n_steps={n_steps}")
    start = baseline_or_zero(baseline, images)
    explained = [] if layer is None else [layers.find(model, layer)]

    given: list = []  # the layer's output, of which captum gets the tensor alone

    def alone(_module, _inputs, out):
        given[:] = [out]
        return first_of(out)

    def forward(x: Tensor) -> Tensor:
        # After captum's hook, whose value what follows may change in place.
        with hooked(explained, lambda _module, _inputs, out: with_first(given[0], out.clone())):
            return model(x)

    along = LayerIntegratedGradients(forward, *explained) if explained else IntegratedGradients(forward)

    def kernel(x, y, size):
        at_once = size if len(x) * n_steps > size else None
        with layers.used(model, layer) as grids, hooked(explained, alone):
            found = along.attribute(
                x, start.to(x), target=y, n_steps=n_steps, method=quadrature, internal_batch_size=at_once
            )
        return found if layer is None else grids[0].maps(found)

    return kernel, n_steps
