"""What a result was made by: hashes of syntax trees, so that mending a sentence changes none of them.

Docstrings, comments and layout do not count. A value in the store hangs on the functions that are really used to make
it; an executed notebook, which is looked at before anything is imported, on every module that it imports from.
"""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Thing = FunctionType | type
WHERE = tuple(f"{ROOT.name}.runtime.{name}" for name in ("parallel", "progress", "store", "workers"))  # work is done


@functools.lru_cache(maxsize=4096)
def tree(source: str) -> str:
    """The syntax tree of Python code without docstrings."""
    parsed = ast.parse(source)
    for node in ast.walk(parsed):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(parsed)


def digest(*parts: str) -> str:
    """Sixteen hexadecimal digits that stand for the parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(hashlib.sha256(part.encode()).digest())
    return state.hexdigest()[:16]


def of_script(source: str) -> str:
    """Fingerprint of a script: its tree, and those of all of the project's modules that it imports, read as text."""
    waiting, trees = list(_imported(source)), {}
    while waiting:
        path = waiting.pop()
        if path not in trees:
            text = path.read_text(encoding="utf-8")
            trees[path] = tree(text)
            waiting += _imported(text)
    return digest(tree(source), *(trees[path] for path in sorted(trees)))


def _imported(source: str) -> Iterator[Path]:
    """Files of the project's modules and packages that code names in its imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == ROOT.name:
            for name in ("", *(alias.name for alias in node.names)):
                path = ROOT.parent.joinpath(*node.module.split("."), name)
                if path.is_dir() and path != ROOT:
                    yield from path.rglob("*.py")
                elif path.with_suffix(".py").is_file():
                    yield path.with_suffix(".py")


def of(*things: Callable, words: Iterable[str] = ()) -> str:
    """Fingerprint of functions and classes, and of all of the project's, or of a notebook, that they use.

    Of a dictionary of functions those count whose names stand in the code or among ``words``, or that are used anyway;
    where there are none, all count. What only says where work is done does not.

    Raises
    ------
    ValueError
        For a function of a notebook that uses data which is not among its arguments.
    """
    waiting, parts, words, registries = [unwrapped(thing) for thing in things], {}, set(words), {}
    own = {ROOT.name, "__main__", *(thing.__module__.split(".")[0] for thing in waiting if isinstance(thing, Thing))}

    def is_new(thing: Any) -> bool:
        counts = isinstance(thing, Thing) and thing.__module__.split(".")[0] in own and thing.__module__ not in WHERE
        return counts and _name(thing) not in parts

    while waiting:
        if is_new(thing := waiting.pop()):
            parts[_name(thing)], constants, chains = _read(thing)
            words |= constants
            for used, value in _used(thing, chains):
                if _is_registry(value):
                    registries[id(value)] = {key: list(_functions(entry)) for key, entry in value.items()}
                elif _is_plain(value):
                    parts[f"{_name(thing)} {used}"] = _said(value)
                else:
                    waiting += _functions(value)
        if not waiting:
            for registry in registries.values():
                pairs = [(key, function) for key, inside in registry.items() for function in inside]
                named = [function for key, function in pairs if key in words or _name(function) in parts]
                waiting += filter(is_new, named or [function for _, function in pairs])
    return digest(*(part for name in sorted(parts) for part in (name, parts[name])))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"


@functools.cache
def _read(thing: Thing) -> tuple[str, frozenset[str], tuple[tuple[str, ...], ...]]:
    """Tree of a function or class, strings in it, and names that it uses, as ("module", "name")."""
    source = textwrap.dedent(inspect.getsource(thing))
    try:
        parsed = ast.parse(source)
    except SyntaxError:  # a function without a name, in the middle of a line
        return source, frozenset(), ()
    nodes = list(ast.walk(parsed))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    chains = set()
    for node in nodes:
        names: tuple[str, ...] = ()
        while isinstance(node, ast.Attribute):
            names = (node.attr, *names)
            node = node.value
        if isinstance(node, ast.Name) and node.id not in bound:
            chains.add((node.id, *names))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return tree(source), frozenset(strings), tuple(sorted(chains))


def _used(thing: Thing, chains: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, Any]]:
    """What names stand for where a thing was defined; of values, the notebook's, and in modules what is a CONSTANT."""
    namespace = getattr(thing, "__globals__", None) or vars(sys.modules[thing.__module__])
    for first, *names in chains:
        if first not in namespace:
            continue
        name, value = first, namespace[first]
        while names and isinstance(value, (ModuleType, type)) and hasattr(value, names[0]):
            name = names.pop(0)
            value = getattr(value, name)
        notebooks = thing.__module__ == "__main__" and name == first
        closed = getattr(value, "__closure__", None) and not hasattr(value, "__wrapped__")
        if notebooks and not (_is_plain(value) or _is_registry(value) or (hasattr(value, "__name__") and not closed)):
            raise ValueError(f"{thing.__qualname__} uses the notebook's {name!r}; make it one of its arguments")
        if notebooks or name.isupper() or not _is_plain(value):
            yield name, value


def unwrapped(thing: Any) -> Any:
    """The function or class behind partials, decorators, and entries of registries, which have a ``function``."""
    thing = getattr(thing, "function", thing)
    while isinstance(thing, functools.partial):
        thing = thing.func
    return inspect.unwrap(thing) if callable(thing) else thing


def _functions(value: Any) -> Iterator[Thing]:
    """Functions and classes in a value: itself, or what it holds."""
    value = unwrapped(value)
    if isinstance(value, Thing):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _functions(one)
    elif isinstance(value, dict):
        yield from _functions(list(value.values()))
    elif is_dataclass(value):
        yield from _functions([getattr(value, field.name, None) for field in fields(value)])


def _is_registry(value: Any) -> bool:
    return isinstance(value, dict) and any(True for _ in _functions(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))


def hooks_of(model: Any) -> Iterator[tuple[dict, int]]:
    """Hooks of a model that do not compute its weights, each as the dictionary that it stands in and its key there."""
    for module in model.modules():
        for hooks in (
            module._forward_pre_hooks,
            module._forward_hooks,
            module._backward_pre_hooks,
            module._backward_hooks,
        ):
            for key, hook in hooks.items():
                if not type(hook).__module__.startswith("torch.nn.utils"):
                    yield hooks, key


def _said(value: Any) -> str:
    """A plain value in words that are the same in every process."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_said, value)))}}}"
    return repr(value)


@functools.cache
def _of_class(kind: Any) -> tuple[str, tuple[str, ...]]:
    """Fingerprint of a class of somebody's and of those that it is made from, by themselves; and its parameters' names.

    By name, where there is no source, as of one that was made by ``exec``.
    """
    own = [one for one in kind.__mro__ if one.__module__.split(".")[0] not in ("builtins", "torch", "torchvision")]
    sources = []
    for one in own:
        things: list[Any] = [one, *(value for value in vars(one).values() if isinstance(value, FunctionType))]
        for thing in things:
            try:
                sources.append(tree(textwrap.dedent(inspect.getsource(thing))))
            except (OSError, TypeError, SyntaxError):
                sources.append(_name(thing))
                continue
            if thing is one:
                break  # which has its functions in it
    return digest(*sources), tuple(inspect.signature(kind).parameters) if own else ()


def of_instance(value: Any) -> str:
    """What made an object: its class's code, and the plain values that it was built with, as far as it keeps them under
    the names of its parameters."""
    kind: Any = type(value)
    fingerprint, names = _of_class(kind)
    known = {name: vars(value)[name] for name in names if name in vars(value)}
    return f"{fingerprint} {sorted((name, _said(one)) for name, one in known.items() if _is_plain(one))}"
