"""Looking at what a model does in a pass: hooks that go with their block, and copies that cost no memory."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from saliency_lib.runtime import code

_KNOWN: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
# Sides of the pictures that are tried where none is given, usual and small ones first.
SIDES = (32, 28, 16, 64, 96, 128, 224, 256, 299, 384, 160, 192, 240, 288, 320, 448, 512, 8)


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where the model is; where the images are, for one without parameters."""
    return next((p.device for p in model.parameters()), images.device)


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the model's weights; float32 for one without parameters."""
    return next((p.dtype for p in model.parameters()), torch.float32)


def known(model: nn.Module) -> dict:
    """What passes have shown of a model, whatever its weights; its copies by :func:`copied` have it in common."""
    return _KNOWN.setdefault(model, {})


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable, before: bool = False):
    """``hook(module, inputs, output)`` after, or ``hook(module, inputs)`` before, each forward pass of the modules,
    inside the block only."""
    with ExitStack() as handles:
        for module in modules:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.enter_context(register(hook))
        yield


def uncompiled(model: nn.Module) -> nn.Module:
    """The model itself; ValueError for one that was compiled, in whose passes hooks may be left out without a word."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{type(model).__name__} is TorchScript, which takes no hooks; pass the network behind it")
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError("the network is compiled, so that hooks are not seen; pass it as before torch.compile")
    return model


def graph(result: Tensor) -> Iterator[torch.autograd.graph.Node]:
    """Nodes of autograd's graph behind a result."""
    known, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known:
            known.add(node)
            yield node
            waiting += [parent for parent, _ in node.next_functions]


def used_by(results: Iterable[Tensor], named: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that results depend on, by autograd, whose graph is kept."""
    wanted = [result.sum() for result in results if result.requires_grad]
    if not (named and wanted):
        return set()
    gradients = torch.autograd.grad(wanted, list(named.values()), retain_graph=True, allow_unused=True)
    return {name for name, gradient in zip(named, gradients) if gradient is not None}


def leaves(model: nn.Module) -> list[nn.Module]:
    """Modules without modules inside."""
    return [module for module in model.modules() if not any(module.children())]


def sharing(model: nn.Module) -> nn.Module:
    """A copy whose weights and statistics are tensors of their own, as ``.to`` needs, on the memory of the model's."""
    views: dict[int, Tensor] = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    views |= {id(b): b.detach() for b in model.buffers()}
    return copied(model, views)


def copied(model: nn.Module, instead: dict[int, Tensor] | None = None) -> nn.Module:
    """A deep copy with other tensors ``instead`` of those with these ids; what a pass has left in it has no graph."""
    left = [tensor for module in model.modules() for tensor in tensors(list(vars(module).values()))]
    without_graph = {id(tensor): tensor.detach() for tensor in left if not tensor.is_leaf}
    attributes = [value for module in model.modules() for value in vars(module).values()]
    empty = {id(value): type(value)() for value in attributes if type(value) in (dict, OrderedDict) and not value}
    made = copy.deepcopy(model, empty | without_graph | (instead or {}))  # most are empty, and slow to copy
    _KNOWN[made] = known(model)
    return made


def tensors(content) -> Iterator[Tensor]:
    """Tensors in lists and mappings, however deep."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (list, tuple, dict)):
        for part in content.values() if isinstance(content, dict) else content:
            yield from tensors(part)


def bare(model: nn.Module) -> nn.Module:
    """Such a copy in eval mode and without hooks, for a pass that nobody should notice; hooks that compute weights, as
    PyTorch's ``weight_norm``, ``spectral_norm`` and ``prune`` do, stay."""
    model = sharing(uncompiled(model)).eval()
    for module in model.modules():  # statistics, and what else a pass may change
        module._buffers |= {name: value.clone() for name, value in module._buffers.items() if value is not None}
    for hooks, key in list(code.hooks_of(model)):
        del hooks[key]
    return model


def channels_of(model: nn.Module) -> list[int]:
    """Of the pictures that the model may take, the likeliest first; none for a model without convolutions."""
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return list(dict.fromkeys((convolution.in_channels, 3, 1))) if convolution else []  # some are added on the way


def probe(model: nn.Module) -> Tensor:
    """A blank batch of one that the model takes, where its weights are; found by trying.

    Raises
    ------
    ValueError
        If none of the usual sizes will do.
    """
    linear = next((m for m in model.modules() if isinstance(m, nn.Linear)), None)
    shapes: list[tuple[int, ...]] = [(1, c, side, side) for c in channels_of(model) for side in SIDES]
    shapes += [(1, linear.in_features)] if linear else []
    like = next((p for p in model.parameters()), torch.empty(0))
    for shape in shapes:
        try:
            with torch.no_grad():
                model(like.new_zeros(shape))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return like.new_zeros(shape)
    raise ValueError(f"found no input that {type(model).__name__} takes; pass images=, a batch of one is enough")


def laid_out(module: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The module, its two-dimensional kernels in a memory layout."""
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=layout)
    return module


def layout_of(model: nn.Module, images: Tensor | None = None) -> torch.memory_format:
    """The memory layout for a model's kernels and pictures: channels last, which is faster, unless it flattens with
    ``.view``; found by a pass of two images, or of blank pictures that it takes."""
    model = bare(model)
    x = probe(model) if images is None else images[:2].detach().to(device_of(model, images))
    x = x if len(x) > 1 else x.expand(2, *x.shape[1:])
    try:
        with torch.no_grad():
            laid_out(model, torch.channels_last)(
                x.clone(memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)
            )
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        return torch.contiguous_format
    return torch.channels_last
