"""A saliency method is one function, registered by a decorator that gives it the signature that all methods share.

A new method is an idea: a function that draws what it draws, and returns the kernel that maps one batch::

    @method("Simonyan et al. 2014", forwards=1, backwards=1)
    def input_gradient(model, images, seed):
        '''Gradients of the target's logit by the input, (n, c, h, w).'''

        def kernel(x, y, size):
            scores = model(x.requires_grad_()).gather(1, y[:, None])
            return torch.autograd.grad(scores.sum(), x)[0]

        return kernel
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, update_wrapper, wraps
from typing import Any

from torch import Tensor, nn

from saliency_lib.inference import check, in_batches

Function = Callable[..., Tensor]  # f(model, images, targets, *, seed=0, batch_size=None) -> maps
Kernel = Callable[[Tensor, Tensor, int], Tensor]  # kernel(x, y, size) -> maps of one batch


@dataclass(frozen=True)
class Method:
    """What is known of a method: the function, where it comes from, and what it costs.

    Attributes
    ----------
    forwards, backwards : int
        Passes per image with default options.
    stochastic : bool
        Whether the map depends on ``seed``.
    signed : bool
        Whether maps have both signs; non-negative maps inflate the SNR.
    needs_modules : bool
        Whether ReLUs (and, for DeepLIFT, all non-linearities) must be modules; the method raises where they are not.
    """

    function: Function
    citation: str
    forwards: int
    backwards: int
    stochastic: bool = False
    signed: bool = True
    needs_modules: bool = False

    @property
    def passes(self) -> int:
        """Forward and back, per image with default options."""
        return self.forwards + self.backwards


METHODS: dict[str, Method] = {}


def composition(citation: str, **facts: Any) -> Callable:
    """Register a method that is made of others: a function of options, by keyword, that returns a method.

    What is decorated becomes ``f(model, images, targets, *, seed=0, batch_size=None)``, with the options that it had,
    and source and cost in its docstring; ``citation`` and ``facts`` are those of :class:`Method`.
    """

    def register(build: Callable) -> Function:
        def public(
            model: nn.Module,
            images: Tensor,
            targets: Tensor,
            *,
            seed: int = 0,
            batch_size: int | None = None,
            **options: Any,
        ) -> Tensor:
            return build(**options)(model, images, targets, seed=seed, batch_size=batch_size)

        own = inspect.signature(public)
        update_wrapper(public, build)
        METHODS[build.__name__] = entry = Method(public, citation, **facts)
        options = [p for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY]
        shared = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        vars(public)["__signature__"] = own.replace(parameters=[*shared, *options])
        public.__doc__ = _documented(inspect.getdoc(build) or "", entry)
        return public

    return register


def method(citation: str, **facts: Any) -> Callable:
    """Register a method that is an idea ``idea(model, images, seed, *, options) -> kernel``.

    ``kernel(x, y, size)`` gives maps of one batch as :func:`saliency_lib.inference.in_batches` wants it. An idea that
    sends each image through the model in several versions returns ``(kernel, copies)``. The input is checked before the
    idea draws. What is decorated becomes a method as by :func:`composition`; the idea itself is its ``kernel``, for
    other ideas to use.
    """

    def register(idea: Callable[..., Kernel | tuple[Kernel, int]]) -> Function:
        @wraps(idea)
        def build(**options):
            def maps(model, images, targets, *, seed, batch_size):
                check(model, images, targets, batch_size)
                made = idea(model, images, seed, **options)
                kernel, copies = made if isinstance(made, tuple) else (made, 1)
                return in_batches(kernel, model, images, targets, batch_size, copies)

            return maps

        public = composition(citation, **facts)(build)
        public.kernel = idea
        return public

    return register


def _documented(text: str, entry: Method) -> str:
    """A docstring with source, cost and a word on the shared arguments after its first paragraph."""
    summary, _, rest = text.partition("\n\n")
    passes = f"{entry.forwards} forward and {entry.backwards} backward passes per image"
    shared = "``model``, ``images``, ``targets``, ``seed`` and ``batch_size`` are as in"
    drawn = "" if entry.stochastic else "Nothing is drawn from ``seed``. "
    facts = f"{entry.citation}. By default {passes}. {drawn}{shared} :func:`saliency_lib.attribution.attribute`."
    return "\n\n".join(filter(None, (summary, textwrap.fill(facts, 116), rest)))


def resolve(method: str | Function) -> Function:
    """The function of a method's name, or the function itself; ValueError for an unknown name or no function."""
    if callable(method):
        return method
    if not isinstance(method, str):
        raise ValueError(
            f"a method is a name or a function, not {type(method).__name__}; METHODS[name].function is one"
        )
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {sorted(METHODS)}")
    return METHODS[method].function


def changed(method: str | Function, change: Callable[[Tensor], Tensor]) -> Function:
    """A method whose maps are ``change(maps)`` of another's: ``changed("input_gradient", torch.abs)``.

    What averages over noise takes it as a base, and then changes the map of every draw.
    """
    base = resolve(method)

    def maps(model, images, targets, *, seed=0, batch_size=None):
        return change(base(model, images, targets, seed=seed, batch_size=batch_size))

    return maps


def attribute(
    method: str | Function,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    seed: int = 0,
    batch_size: int | None = None,
    layer: str | None = None,
) -> Tensor:
    """Maps, (n, c, h, w) float32, by a method of ``METHODS`` or any function of the same signature.

    Parameters
    ----------
    model : nn.Module
        In eval mode; gives logits, (n, classes).
    images, targets : Tensor
        (n, c, h, w), normalised, and the classes to explain, (n,) int64.
    seed : int
        What a stochastic method draws from; not negative.
    batch_size : int, optional
        Images per pass; default: from the free memory. It changes no map, but for rounding.
    layer : str, optional
        For methods that explain a layer, as :func:`gradcam` does; default: the method's own.

    Raises
    ------
    ValueError
        For an unknown method, a model in training mode, other shapes or types, and all that the methods raise.
    """
    method = resolve(method)
    if layer is not None:
        if "layer" not in inspect.signature(method).parameters:
            raise ValueError(f"{getattr(method, '__name__', method)} explains the input, not a layer; leave layer out")
        method = partial(method, layer=layer)
    return method(model, images, targets, seed=seed, batch_size=batch_size)
