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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Thing = FunctionType | type


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
            text = path.read_text()
            trees[path] = tree(text)
            waiting += _imported(text)
    return digest(tree(source), *(trees[path] for path in sorted(trees)))


def _imported(source: str) -> Iterator[Path]:
    """Files of the project's modules and packages that code names in its imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == ROOT.name:
            for name in ("", *(alias.name for alias in node.names)):
                path = ROOT.parent.joinpath(*node.module.split("."), name)
                if path.is_dir() and path != ROOT:
                    yield from path.rglob("*.py")
                elif path.with_suffix(".py").is_file():
                    yield path.with_suffix(".py")


def of(*things: Callable) -> str:
    """Fingerprint of functions and classes, and of all of the project's, or of a notebook, that they use.

    What is looked up in a dictionary of functions counts if its name stands in the code; where none does, all count.

    Raises
    ------
    ValueError
        For a function of a notebook that uses data which is not among its arguments.
    """
    waiting, parts, words, registries = [unwrapped(thing) for thing in things], {}, set(), {}
    own = {ROOT.name, "__main__", *(thing.__module__.split(".")[0] for thing in waiting)}
    while waiting or registries:
        if not waiting:
            _, registry = registries.popitem()
            waiting += [unwrapped(entry) for entry in [registry[w] for w in words & set(registry)] or registry.values()]
            continue
        thing = waiting.pop()
        name = f"{thing.__module__}.{thing.__qualname__}"
        if not isinstance(thing, Thing) or thing.__module__.split(".")[0] not in own or name in parts:
            continue
        source = textwrap.dedent(inspect.getsource(thing))
        try:
            parts[name], parsed = tree(source), ast.parse(source)
        except SyntaxError:  # a function without a name, in the middle of a line
            parts[name] = source
            continue
        words |= {node.value for node in ast.walk(parsed) if isinstance(node, ast.Constant)}
        for used, value in _used(parsed, vars(sys.modules[thing.__module__])):
            if isinstance(value, dict) and any(isinstance(unwrapped(entry), Thing) for entry in value.values()):
                registries.setdefault(id(value), value)
            elif isinstance(unwrapped(value), Thing):
                waiting.append(unwrapped(value))
            elif _is_plain(value):
                parts[f"{name} {used}"] = repr(value)
            elif thing.__module__ == "__main__" and not isinstance(value, ModuleType):
                raise ValueError(f"{thing.__qualname__} uses {used!r} of the notebook; make it one of its arguments")
    return digest(*(part for name in sorted(parts) for part in (name, parts[name])))


def unwrapped(thing: Any) -> Any:
    """The function or class behind partials, decorators, and entries of registries, which have a ``function``."""
    thing = getattr(thing, "function", thing)
    while isinstance(thing, functools.partial):
        thing = thing.func
    return inspect.unwrap(thing) if callable(thing) else thing


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))


def _used(parsed: ast.AST, namespace: dict) -> Iterator[tuple[str, Any]]:
    """Names of the namespace that code uses, also as ``module.name``, with what they stand for."""
    nodes = list(ast.walk(parsed))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        names = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in bound or node.id not in namespace:
            continue
        value, said = namespace[node.id], node.id
        while names and isinstance(value, (ModuleType, type)) and hasattr(value, names[0]):
            said = names.pop(0)
            value = getattr(value, said)
        yield said, value
