"""Executed notebooks as the site shows them."""

import nbformat

from saliency_lib.book import profiles


def page(book: nbformat.NotebookNode, name: str, *, solutions: bool = True) -> nbformat.NotebookNode:
    """A copy for readers.

    Solutions go if they are not wanted, and so do the parameters that papermill put in where they repeat the notebook's
    own. Cells that draw a figure are folded, and pictures keep their alternative text and width.
    """
    shown = nbformat.from_dict({**book, "cells": []})
    for cell in book.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and not solutions:
            continue
        if "injected-parameters" in tags and _repeats(book, name):
            continue
        shown.cells.append(_for_readers(cell) if cell.cell_type == "code" else cell)
    return shown


def _repeats(book: nbformat.NotebookNode, name: str) -> bool:
    """Whether papermill's parameters are the notebook's own."""
    injected = book.metadata.get("papermill", {}).get("parameters", {})
    return profiles.parameters(name) == profiles.parameters(name) | injected


def _for_readers(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    cell = nbformat.from_dict({**cell, "metadata": {"tags": list(cell.metadata.get("tags", []))}})
    if cell.source.startswith("# This cell draws"):
        cell.metadata["tags"].append("hide-input")
    pictures = [o.metadata["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}) and o.metadata]
    if len(pictures) == 1:
        cell.metadata["mystnb"] = {
            "image": {"alt": pictures[0]["alt"], "width": f"{pictures[0]['width']}px", "class": "picture"}
        }
    return cell


def differences(name: str) -> str:
    """What a notebook says of its differences from the paper: the paragraph of that name, in Markdown.

    Raises
    ------
    ValueError
        If it has none.
    """
    start = "**Differences from the paper.**"
    for cell in profiles.read_notebook(name).cells:
        if cell.cell_type == "markdown" and start in cell.source:
            return cell.source.split(start, 1)[1].split("\n\n", 1)[0].strip()
    raise ValueError(f"{name} has no paragraph {start}")


def title(name: str) -> str:
    """The heading of a notebook."""
    return profiles.read_notebook(name).cells[0].source.splitlines()[0].removeprefix("# ")
