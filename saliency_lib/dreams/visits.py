"""What lucent minimises: an objective's mean over models, which are visited one after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from saliency_lib.hooks import device_of, hooked
from saliency_lib.noisegrad import perturbed
from saliency_lib.runtime.seeds import MEMBERS, WEIGHTS, derive


class Recorder(nn.Module):
    """Stands where lucent expects the model, and keeps what it would see."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


class Visits:
    """The models of each step, one after the other, with noise on their weights while they are visited."""

    def __init__(self, models: list[nn.Module], seed: int, subset: int | None, sigma: float, n_draws: int, fresh: bool):
        self.models, self.seed, self.subset = models, seed, subset
        self.sigma, self.n_draws, self.fresh = sigma, n_draws if sigma else 1, fresh
        self.order = torch.Generator().manual_seed(derive(seed, MEMBERS))
        self.noise = self._generators()

    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(derive(self.seed, WEIGHTS, k)) for k in range(len(self.models))]

    def __iter__(self) -> Iterator[tuple[nn.Module, torch.Generator]]:
        chosen = range(len(self.models))
        if self.subset is not None:
            chosen = torch.randperm(len(self.models), generator=self.order)[: self.subset].tolist()
        noise = self.noise if self.fresh else self._generators()
        return iter([(self.models[k], noise[k]) for k in chosen for _ in range(self.n_draws)])


class Mean:
    """The objective's mean over visits, whose gradients are added up at what the models see.

    Called by lucent once per step. ``stop_if_asked`` is called between visits, when every model is as it was.
    """

    def __init__(self, objective: Callable, recorder: Recorder, visits: Visits, n: int, bar, stop_if_asked: Callable):
        self.objective, self.recorder, self.visits, self.n = objective, recorder, visits, n
        self.bar, self.stop_if_asked = bar, stop_if_asked

    def __call__(self, hook: Callable) -> Tensor:
        whole = [self.recorder.seen]  # and the pictures before their random change, if the objective asks for them
        if len(whole[0]) != self.n:
            raise ValueError(f"param_f gives {len(whole[0])} pictures for {self.n} targets; it should give one each")
        leaves, gradients, value = [whole[0].detach().requires_grad_()], [0.0, 0.0], torch.zeros(())

        def pictures() -> Tensor:
            if len(whole) == 1:
                whole.append(hook("input"))
                leaves.append(whole[1].detach().requires_grad_())
            return leaves[1]

        def look(model: nn.Module) -> tuple[Tensor, tuple]:
            with _activations(model, pictures) as activation:
                model(leaves[0].clone().to(device_of(model, leaves[0])))
                loss = _scalar(self.objective, activation)
            return loss.detach().cpu(), torch.autograd.grad(loss, leaves, allow_unused=True)

        visits = list(self.visits)
        for model, generator in visits:
            self.stop_if_asked()
            with perturbed(model, self.visits.sigma, generator) if self.visits.sigma else nullcontext():
                loss, parts = look(model)
            value = value + loss
            gradients = [total if part is None else total + part for total, part in zip(gradients, [*parts, None])]
        self.bar.update()
        surrogate = sum((x * g).sum().cpu() for x, g in zip(whole, gradients)) / len(visits)  # has the mean's gradient
        return surrogate + (value / len(visits) - surrogate.detach())  # and its value


def _scalar(objective: Callable, activation: Callable[[str], Tensor]) -> Tensor:
    try:
        loss = objective(activation)
    except IndexError as error:
        raise ValueError(f"the objective asks for what its layer does not have: {error}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"the objective gives {loss!r}, not one number that depends on the pictures")
    if not loss.isfinite():
        raise ValueError(f"the objective is {loss.item()}; look at the model's weights, and at mean and std")
    return loss


@contextmanager
def _activations(model: nn.Module, pictures: Callable[[], Tensor]) -> Iterator[Callable[[str], Tensor]]:
    """What lucent's objectives ask, by layer name, of the passes inside the block."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name.replace(".", "_") or "labels")
    found = {}

    def keep(module: nn.Module, _inputs, output) -> None:
        found.update(dict.fromkeys(names[module], output))

    def activation(layer: str) -> Tensor:
        if layer == "input":
            return pictures()
        if layer not in found:
            raise ValueError(f"no layer {layer!r} took part; one of input, {', '.join(found)}")
        return found[layer]

    with hooked(list(names), keep):
        yield activation
