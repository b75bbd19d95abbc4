"""A notebook executed: with papermill in a kernel of its own, or its code as a script where there is no Jupyter."""

import linecache
from contextlib import chdir, redirect_stdout
from pathlib import Path
from traceback import format_exc

import matplotlib

from saliency_lib.book import profiles


def in_kernel(source: Path, parameters: dict, executed: Path, *, cwd: Path, bar: bool = False) -> str:
    """Execute the notebook ``source`` into ``executed``, beside a log of its output; what went wrong, or nothing."""
    import papermill  # here, since scripts do without it
    from papermill.exceptions import PapermillExecutionError

    name, log = executed.stem, executed.with_suffix(".log")
    rest = f"As far as it got: {executed}; its output: {log}"
    options = {"kernel_name": "python3", "log_output": False, "extra_arguments": ["--log-level=CRITICAL"]}
    try:
        with log.open("w", encoding="utf-8") as output:
            options |= {"cwd": str(cwd), "progress_bar": bar, "stdout_file": output, "stderr_file": output}
            papermill.execute_notebook(*map(_literal, (source, executed)), parameters, **options)
    except PapermillExecutionError as error:
        where = f"cell [{error.exec_count}] with {error.ename}: {error.evalue}"
        return f"{name} failed in {where}\n\n{error.source}\n\n{rest}"
    except OSError as error:
        return f"{name} failed: {error}"
    except RuntimeError as error:  # the kernel died or never started
        return f"{name} stopped: {error}. {rest}"
    return ""


def _literal(path: Path) -> str:
    """A path in whose braces papermill sees no parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def in_process(notebook: str, parameters: dict, log: Path) -> str:
    """Run a notebook's code in this process, its output into ``log``; what went wrong, or nothing."""
    try:
        with log.open("w", encoding="utf-8") as output, redirect_stdout(output):
            run(notebook, parameters)
    except Exception as error:
        return f"{notebook} failed with {type(error).__name__}: {error}\n\n{format_exc()}\nIts output: {log}"
    return ""


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
