"""SHAP by gradients: what an image has more than others, a mean over references."""

import torch
from torch import Tensor

from saliency_lib.attribution.baselines import checked
from saliency_lib.attribution.deeplift import over_references
from saliency_lib.attribution.method import method

N_NOISE = 10


def references_or_noise(references: Tensor | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """The references, (m, c, h, w) like the images, or noise with the data's mean and standard deviation.

    Raises
    ------
    ValueError
        If their shape is not that of the images, or a value is not finite.
    """
    if references is None:
        return torch.randn(N_NOISE, *images.shape[1:], generator=generator).to(images)
    return checked("references", references, images)


@method("Lundberg and Lee 2017", forwards=25, backwards=25, stochastic=True)
def gradient_shap(model, images, seed, *, n_samples: int = 25, references: Tensor | None = None):
    """Expected gradients: as integrated gradients, at random points of paths from random references, (n, c, h, w).

    Their GradientExplainer, as captum's GradientShap, but with draws from ``seed`` that all images share. In logits;
    signed.

    Parameters
    ----------
    references : Tensor, optional
        (m, c, h, w), normalised: the distribution to compare with, best taken from the training data. Default: noise
        with the data's mean and standard deviation.
    """
    if n_samples < 1:
        raise ValueError(f"GradientSHAP needs at least one sample, not {n_samples}")
    generator = torch.Generator().manual_seed(int(seed))
    pool = references_or_noise(references, images, generator)
    ends = pool[torch.randint(len(pool), (n_samples,), generator=generator)]
    alphas = torch.rand(n_samples, generator=generator).view(-1, 1, 1, 1)

    def kernel(x, y, size):
        total = torch.zeros_like(x)
        for k in torch.arange(n_samples).split(max(1, size // len(x))):
            reference, alpha = ends[k].to(x)[:, None], alphas[k].to(x)[:, None]
            span = x - reference  # samples, images, c, h, w
            points = (reference + alpha * span).flatten(0, 1)
            scores = model(points.requires_grad_()).gather(1, y.repeat(len(k))[:, None])
            total += (torch.autograd.grad(scores.sum(), points)[0].view_as(span) * span).sum(0)
        return total / n_samples

    return kernel, n_samples


@method("Lundberg and Lee 2017", forwards=1, backwards=10, stochastic=True, needs_modules=True)
def deeplift_shap(model, images, seed, *, references: Tensor | None = None):
    """Mean of DeepLIFT over references, (n, c, h, w), in logits; signed.

    Their DeepExplainer. A map sums to the target's logit less its mean over references.

    Parameters
    ----------
    references : Tensor, optional
        (m, c, h, w), normalised, all of them used; best from the training data. Default: ten draws of noise with the
        data's mean and standard deviation.
    """
    return over_references(model, references_or_noise(references, images, torch.Generator().manual_seed(int(seed))))
