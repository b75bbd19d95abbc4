"""Signal-to-noise of gradients over many architectures: a resumable row per ensemble, and effects between rows."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import torch

from saliency_lib import controls, ensembles, snr
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.estimates import Estimate, exponential, loglog_slope, student
from saliency_lib.models.catalogue import CONVNET
from saliency_lib.runtime import rows
from saliency_lib.training import default_device

# What :func:`fastest` chooses is what won in tests/benchmarks/joint_training.csv, for batches of 128. Fixed per kind of
# device and recorded in every recipe; never chosen by timing, since weights must repeat.
TOGETHER = 8  # members that are trained side by side, where that pays
WIDEST = {(True, True): 16, (True, False): 4, (False, True): 4, (False, False): 0}  # by (small pictures, pooling)


def fastest(model: str, size: int, device: str | None = None) -> dict:
    """Options of :class:`saliency_lib.training.Recipe` with which convnets train fastest, a process on each core.

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
    return {"device": device, "channels_last": last, "together": TOGETHER if width <= WIDEST[small, pooled] else 1}


def measure(spec: EnsembleSpec, n_images: int | None) -> dict[str, float | Estimate]:
    """The row of one ensemble, which is trained if need be.

    Returns
    -------
    dict
        ``snr`` (plug-in) and ``debiased`` SNR of input gradients of the first ``n_images`` validation images, or of
        all; ``images``, how many; ``clipped``; ``accuracy`` on all of them; ``loss`` on the training images;
        ``power``, the squared SNR, with and without each group of members, for :func:`effect`; ``seconds`` of
        training.
    """
    ensemble, (_, val) = ensembles.get(spec), ensembles.splits(spec)
    val = val.take(slice(n_images)).to(spec.recipe.device)
    found = snr.measure("input_gradient", ensemble, val.inputs(), val.labels)
    losses = [record["history"]["loss"][-1] for record in ensemble.records if record["history"]["loss"]]
    return {
        "snr": found.estimate(snr.plugin_mean),
        "debiased": found.debiased(),
        "clipped": found.clipped,
        "images": len(val),
        "accuracy": student(ensemble.accuracies),
        "loss": sum(losses) / len(losses) if losses else math.nan,
        "seconds": ensemble.seconds,
    } | controls.with_parts("power", [snr.power_mean(p) for p in (found.value, *found.without)])


def run(
    name: str, cells: Sequence[tuple[dict, EnsembleSpec]], n_images: int | None, executor: str = "serial"
) -> tuple[list[dict], int]:
    """Rows of all cells, in their order, and how many of them were found in the table ``<rows>/<name>.csv``.

    Parameters
    ----------
    cells : sequence of (dict, EnsembleSpec)
        The dict says what tells the cell from others, ``{"width": 4, "depth": 1, ...}``: columns of the table.
    n_images : int, optional
        As in :func:`measure`.
    executor : str
        Where the cells are computed, as in :func:`saliency_lib.runtime.executors.get`.
    """
    more = {"asked": n_images or "all", "code": rows.code("sweep"), "torch": torch.__version__}
    keyed = [(cell | {"ensemble": spec.key, "members": spec.n_members} | more, spec) for cell, spec in cells]
    table, device = rows.Rows(name), cells[0][1].recipe.device if cells else "cpu"
    return table.collect(partial(measure, n_images=n_images), keyed, executor, device), table.found


def log_snr(power: float) -> float:
    """Logarithm of an SNR from its square; no number from none."""
    return math.log(power) / 2 if power > 0 else math.nan


def contrast(rows: Mapping[Hashable, dict], statistic: Callable[[dict], float], members: int) -> Estimate:
    """A ratio of debiased SNRs from its logarithm, ``statistic({name: squared SNR})``.

    The interval is over members, of all ensembles at once, since members of the same number share their seeds.
    Unbounded where the statistic is no number.

    Parameters
    ----------
    rows : dict
        ``{name: row}`` of :func:`run`, of ensembles with ``members`` members each.
    """
    return exponential(controls.jointly(statistic, rows, members, "power"))


def effect(rows: Mapping[Hashable, dict], above: Sequence, below: Sequence, members: int) -> Estimate:
    """Geometric mean of the debiased SNR of the rows ``above``, relative to that of the rows ``below``, if any."""

    def mean_log(power: dict, names: Sequence) -> float:
        return sum(log_snr(power[name]) for name in names) / len(names)

    used = {name: rows[name] for name in (*above, *below)}
    return contrast(used, lambda power: mean_log(power, above) - (mean_log(power, below) if below else 0), members)


def exponent(rows: Mapping[Hashable, dict], lines: Sequence[Mapping[float, Hashable]], members: int) -> Estimate:
    """Exponent b of debiased SNR = a x^b, fitted by least squares to each line ``{x: name}``; mean over lines."""

    def mean_slope(power: dict) -> float:
        slopes = [loglog_slope(list(line), [power[name] for name in line.values()]) for line in lines]
        return sum(slopes) / len(slopes) / 2  # power is the square of SNR

    used = {name: rows[name] for line in lines for name in line.values()}
    return controls.jointly(mean_slope, used, members, "power")
