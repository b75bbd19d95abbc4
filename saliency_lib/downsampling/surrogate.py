"""A network whose strided convolutions are replaced by trained ones without strides (Herdt et al. 2024)."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.downsampling.remedies import touched
from saliency_lib.hooks import copied, device_of, hooked
from saliency_lib.inference import check, facts
from saliency_lib.recipe import device_settings
from saliency_lib.runtime.seeds import derive, seeded


class BilinearPath(nn.Module):
    """3x3 convolution, bilinear resize, 3x3 convolution: in place of a strided convolution, which it keeps.

    At an exact factor of two the resize is the mean of 2 x 2 pixels.
    """

    def __init__(self, original: nn.Conv2d):
        super().__init__()
        like: dict[str, Any] = {"device": original.weight.device, "dtype": original.weight.dtype}
        self.original, self.teaching = original, False
        self.before = nn.Conv2d(original.in_channels, original.out_channels, 3, padding=1, **like)
        self.after = nn.Conv2d(original.out_channels, original.out_channels, 3, padding=1, **like)

    def smooth(self, x: Tensor) -> Tensor:
        """What stands for the original's output, of the same shape."""
        conv, padding = self.original, self.original.padding
        padding = (0, 0) if isinstance(padding, str) else padding  # "valid", as "same" goes with no stride
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[2:], padding, conv.dilation, conv.kernel_size, conv.stride)
        ]
        if type(conv).forward is not nn.Conv2d.forward:  # as timm's, which pads by itself
            size = list(conv(x[:1]).shape[2:])
        return self.after(F.interpolate(self.before(x), size, mode="bilinear", align_corners=False))

    def forward(self, x: Tensor) -> Tensor:
        """The replacement's output, or while it is taught the original's."""
        return self.original(x) if self.teaching else self.smooth(x)


class BilinearSurrogate(nn.Module):
    """A copy of a model whose strided convolutions are replaced by :class:`BilinearPath`, to be trained by ``fit``.

    Herdt et al. 2024, section 3.1 and Fig. 2. Takes the model's place; ``network`` has the names of the model's layers.

    Parameters
    ----------
    layers, images
        As in :func:`strided_convs`, which lists what is replaced.
    seed : int
        Of the initial weights of the paths.

    Attributes
    ----------
    losses : dict
        For each replaced layer, the mean absolute error of each epoch so far, in units of its output.

    Raises
    ------
    ValueError
        As :func:`strided_convs`, where nothing is replaced, and for strides above two, where a resize skips pixels.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] | None = None, images: Tensor | None = None, *, seed: int = 0
    ):
        super().__init__()
        convs = touched(model, layers, images).values()
        if steep := [conv for conv in convs if max(conv.stride) > 2]:
            raise ValueError(
                f"{steep[0].name!r} has stride {steep[0].stride}, where a bilinear resize would skip pixels; use "
                "smooth_backward or smooth_forward"
            )
        self.network = copied(model)
        self.losses = {conv.name: [] for conv in convs}
        with seeded(seed):
            for conv in convs:
                original = cast(nn.Conv2d, self.network.get_submodule(conv.name))
                path = BilinearPath(original)
                for name, module in [*self.network.named_modules(remove_duplicate=False)]:
                    if module is original:  # which may go by several names
                        self.network.set_submodule(name, path)
        self.eval().requires_grad_(False)

    @property
    def paths(self) -> dict[str, BilinearPath]:
        """The replacements by the names of what they replace."""
        return {name: cast(BilinearPath, self.network.get_submodule(name)) for name in self.losses}

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, classes), with all replacements."""
        return self.network(x)

    def fit(
        self, images: Tensor, *, epochs: int = 10, batch_size: int = 64, lr: float = 1e-3, seed: int = 0
    ) -> "BilinearSurrogate":
        """Teach every path the output of its original on the original network's activations; the rest stays as it is.

        Section 4.1.2: Adam, L1 loss, 10 epochs, batches of 64 for ImageNet; images (n, c, h, w) of the training data,
        normalised, without labels. Can be called again to go on. Gives the surrogate itself. In the precision in which
        networks are trained on its device (:func:`saliency_lib.recipe.device_settings`).
        """
        if epochs < 1:
            raise ValueError(f"a surrogate is taught for at least one epoch, not {epochs}")
        check(self.eval(), images, batch_size=batch_size)
        paths, layout = self.paths, facts(self, images).layout
        weights = [p for path in paths.values() for conv in (path.before, path.after) for p in conv.parameters()]
        optimizer, device = torch.optim.Adam(weights, lr=lr), device_of(self, images).type
        half = device in ("cpu", "cuda") and device_settings(device)["bfloat16"]
        try:
            for path in paths.values():
                path.teaching = True
            for p in weights:
                p.requires_grad_(True)
            for _ in range(epochs):
                done = len(next(iter(self.losses.values())))
                generator, sums = torch.Generator().manual_seed(derive(seed, done + 1)), dict.fromkeys(paths, 0.0)
                for rows in torch.randperm(len(images), generator=generator).split(batch_size):
                    with torch.enable_grad():
                        with torch.autocast(device, torch.bfloat16, enabled=half):
                            pairs = self._pairs(images[rows], layout).items()
                            losses = {
                                name: F.l1_loss(paths[name].smooth(x).float(), y.float()) for name, (x, y) in pairs
                            }
                        optimizer.zero_grad(set_to_none=True)
                        torch.stack(list(losses.values())).sum().backward()
                    optimizer.step()
                    for name, loss in losses.items():
                        sums[name] += loss.item() * len(rows)
                for name, total in sums.items():
                    self.losses[name].append(total / len(images))
        finally:
            self.requires_grad_(False)
            for path in paths.values():
                path.teaching = False
        return self

    def _pairs(self, images: Tensor, layout: torch.memory_format) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs and outputs of the originals in one pass of the original network, by name."""
        x, pairs = images.to(device_of(self, images), memory_format=layout), {}
        names = {path: name for name, path in self.paths.items()}
        with torch.no_grad(), hooked(list(names), lambda m, i, out: pairs.update({names[m]: (i[0], out.clone())})):
            self.network(x)
        return pairs
