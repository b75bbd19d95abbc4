"""How a network is trained: part of what an ensemble is, and what is known to be fast."""

import os
from dataclasses import dataclass, field

import torch

from saliency_lib.augmentation import AUGMENT
from saliency_lib.models.catalogue import CONVNET

# Best peak rate for Adam one-cycle in the sweep of tests/benchmarks/learning_rates.py (its table: learning_rates.csv).
MAX_LR = {"convnet": 1e-2, "lenet": 3e-3, "cnn": 3e-3, "mlp": 3e-4, "vgg11": 3e-4, "vgg16": 3e-4, "vgg19": 3e-4}
DEFAULT_LR = 0.01  # Woerl et al. 4.1, for their ResNet18; used for every residual network
# What :func:`fastest` chooses won in tests/benchmarks/joint_training.csv, for batches of 128, in bfloat16 too.
TOGETHER = 8  # members that are trained side by side, where that pays
WIDEST = {(True, True): 16, (True, False): 4, (False, True): 4, (False, False): 0}  # by (small pictures, pooling)


def default_device() -> str:
    """``"cuda"`` where there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_settings(device: str) -> dict[str, bool]:
    """How networks are trained on ``"cpu"`` or ``"cuda"``: in bfloat16 on a GPU and on an x86 CPU that computes in it.

    Recorded in every recipe and never chosen by timing, since weights must repeat. ``SALIENCY_PRECISION=float32``
    forces float32. Raises ValueError for another device, and another precision.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; one of ['cpu', 'cuda']")
    if (precision := os.environ.get("SALIENCY_PRECISION", "")) not in ("", "float32"):
        raise ValueError(f"SALIENCY_PRECISION={precision!r} is unknown; leave it away, or set it to float32")
    able = torch.cpu.get_capabilities()
    bfloat16 = device == "cuda" or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return {"channels_last": True, "bfloat16": bfloat16 and not precision}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; part of an ensemble's key, so every field is recorded.

    Attributes
    ----------
    schedule : str
        ``"adam_onecycle"`` (Adam, one-cycle rate that peaks at ``lr``) or ``"sgd_step"`` (momentum SGD, ``lr`` halved
        after 1/2 and 5/6 of the epochs, which is after 15 and 25 of 30).
    lr : float, optional
        Peak learning rate; default 0.01 (Woerl et al.), for networks without shortcuts that of a small sweep.
    augment : str
        ``"none"``, ``"flip_crop"`` (random mirror image, random shift by up to an eighth of the side) or
        ``"resized_crop"`` (random mirror image, a random part of 35 to 100 % of the area enlarged).
    label_seed : int, optional
        Train on labels permuted with this seed (Adebayo et al.); default: the true ones.
    together : int
        Members of an ensemble that are trained side by side (:func:`fit_together`); convnets and the MLP. Which ones
        those are changes the weights by rounding only.
    device : str
        ``"cpu"`` or ``"cuda"``; default: the GPU where there is one. Sets ``channels_last`` and ``bfloat16`` by
        :func:`device_settings`.
    """

    schedule: str = "adam_onecycle"
    epochs: int = 8
    batch_size: int = 128
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: str = "none"
    label_seed: int | None = None
    together: int = 1
    device: str = field(default_factory=default_device)
    channels_last: bool | None = None
    bfloat16: bool | None = None

    def __post_init__(self):
        if self.schedule not in ("adam_onecycle", "sgd_step"):
            raise ValueError(f"unknown schedule {self.schedule!r}; one of ['adam_onecycle', 'sgd_step']")
        if self.augment not in ("none", *AUGMENT):
            raise ValueError(f"unknown augment {self.augment!r}; one of {['none', *AUGMENT]}")
        settings = device_settings(self.device)
        for name in ("epochs", "batch_size", "together"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, value in settings.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)


def max_lr(model_name: str) -> float:
    """Peak learning rate for Adam one-cycle: 0.01 for residual networks, that of the sweep for the others."""
    return MAX_LR.get(model_name.split("-")[0], DEFAULT_LR)


def fastest(model: str, size: int, device: str | None = None) -> dict:
    """Options of :class:`Recipe` with which convnets train fastest, a process on each core.

    On a CPU, grouped convolutions win for a few channels, the more the smaller the pictures; channels last wins
    wherever there is pooling, and else for a few channels of larger pictures in several layers. On a GPU nothing was
    measured: the recipe's defaults.

    Parameters
    ----------
    model : str
        ``convnet-w16-d2-max`` or the like.
    size : int
        Side of the pictures in pixels.
    device : str, optional
        Default: the GPU where there is one.
    """
    device, match = device or default_device(), CONVNET.fullmatch(model)
    if not match:
        raise ValueError(f"only convnets were measured, such as convnet-w16-d2-max, not {model!r}")
    if device != "cpu":
        return {"device": device}
    width, depth, pool = match.groups()
    width, small, pooled = int(width), size <= 16, pool != "none"
    last = pooled or (not small and width <= 8 and int(depth) > 1)
    paired = pool in ("none", "max", "avg") and width <= WIDEST[small, pooled]
    return {"device": device, "channels_last": last, "together": TOGETHER if paired else 1}
