"""Networks of one architecture side by side, as one network of grouped convolutions."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PER_CHANNEL = (nn.MaxPool2d, nn.AvgPool2d, nn.ReLU, nn.Softplus, nn.GELU, nn.Tanh, nn.Identity)


class _Flatten(nn.Module):
    """(n, members * c, h, w) to (members, n, c * h * w)."""

    def __init__(self, members: int):
        super().__init__()
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.members, -1).transpose(0, 1)


class _Linear(nn.Module):
    """A linear layer per member: (members, n, features in) to (members, n, features out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        for name, _ in layers[0].named_parameters():
            setattr(self, name, nn.Parameter(torch.cat([getattr(layer, name).detach() for layer in layers])))
        self.members = len(layers)

    def forward(self, x: Tensor) -> Tensor:
        out = x @ self.weight.view(self.members, -1, x.shape[2]).transpose(1, 2)
        return out + self.bias.view(self.members, 1, -1) if hasattr(self, "bias") else out


def _stack(layers: Sequence[nn.Module]) -> nn.Module:
    """One layer out of the same layer of every member."""
    kind, members = layers[0], len(layers)
    if type(kind) is nn.Conv2d:
        conv = copy.deepcopy(kind)
        conv.in_channels, conv.out_channels = members * kind.in_channels, members * kind.out_channels
        conv.groups *= members
        for name, parameter in conv.named_parameters():
            parameter.data = torch.cat([getattr(layer, name).detach() for layer in layers])
        return conv
    if type(kind) is nn.Linear:
        return _Linear(layers)
    if type(kind) is nn.Flatten:
        return _Flatten(members)
    if type(kind) in PER_CHANNEL:
        return copy.deepcopy(kind)
    raise ValueError(f"a {type(kind).__name__} cannot be stacked; train these networks with together=1")


class Stacked(nn.Module):
    """Networks as one: pictures side by side as channels, (n, members * c, h, w), to logits (members, n, classes).

    Holds copies of the members' weights; no value of one member reaches another, so that the gradient of the sum of
    their losses is each one's own.

    Parameters
    ----------
    members : sequence of nn.Sequential
        Of one architecture: convolutions, poolings and activations, ``nn.Flatten``, then linear layers and activations;
        all parameters trained.

    Raises
    ------
    ValueError
        For a network or layer of another kind.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if odd := next((type(member) for member in members if type(member) is not nn.Sequential), None):
            raise ValueError(f"a {odd.__name__} cannot be stacked; train these networks with together=1")
        if len({str(member) for member in members}) > 1:
            raise ValueError("networks of different architectures cannot be stacked; train them with together=1")
        layers = [type(layer) for layer in members[0].children()]
        if layers.count(nn.Flatten) != 1 or layers[-1] is not nn.Linear:
            raise ValueError("only networks that flatten once and end in a linear layer can be stacked; use together=1")
        if not all(parameter.requires_grad for member in members for parameter in member.parameters()):
            raise ValueError("networks with frozen parameters cannot be stacked; train them with together=1")
        self.layers = nn.Sequential(*(_stack(layers) for layers in zip(*(member.children() for member in members))))
        self.members = len(members)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    @torch.no_grad()
    def copy_to(self, members: Sequence[nn.Module]) -> None:
        """Write the weights back into networks of the kind that this was made from."""
        for name, parameter in self.layers.named_parameters():
            for member, part in zip(members, parameter.chunk(self.members)):
                member.get_parameter(name).copy_(part)
