"""A notebook's code as a plain script, where there is no Jupyter: the same rows and figures, but no executed copy."""

import linecache
from contextlib import chdir

import matplotlib

from saliency_lib.book import profiles


def pieces(notebook: str, parameters: dict) -> list[str]:
    """Code of the cells, in order, but for solutions; ``parameters`` follow the notebook's own."""
    found = []
    for cell in profiles.content(notebook)["cells"]:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and "solution" not in tags:
            found.append("".join(cell["source"]))
        if "parameters" in tags:
            found.append("\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    return found


def run(notebook: str, parameters: dict) -> dict:
    """Run a notebook's code in this process, in the notebooks' folder; returns its variables.

    Raises
    ------
    Exception
        Whatever a cell raises; its traceback names the cell.
    """
    matplotlib.use("agg")
    variables: dict = {"__name__": "__main__"}
    with chdir(profiles.NOTEBOOKS):
        for k, source in enumerate(pieces(notebook, parameters)):
            name = f"<{notebook}, piece {k}>"
            linecache.cache[name] = len(source), None, source.splitlines(True), name  # so that tracebacks show lines
            exec(compile(source, name, "exec"), variables)
    return variables
