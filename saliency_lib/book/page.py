"""An executed notebook as one page without its code, for readers: pictures inside, no other file, no network."""

from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from saliency_lib.book.explorer import SCRIPT
from saliency_lib.runtime.store import atomic

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; }
.output_html { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; border: 0; margin: 1rem 0; }
th, td { padding: 0.3rem 0.7rem; border: 0; border-bottom: 1px solid #ddd; vertical-align: top; }
th, td { text-align: left !important; }
.sentences { border-left: 4px solid #a84300; padding-left: 1rem; }
</style>
</head>
<body>
<h1>{title}</h1>
"""


def write(executed: Path, title: str, page: Path) -> None:
    """Write a notebook's text and outputs, but for what it said on stderr, to ``page``."""
    book = nbformat.read(executed, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    exporter.exclude_anchor_links = True
    body, _ = exporter.from_notebook_node(book)
    if 'class="explorer"' in body:
        body += f"<script>\n{SCRIPT.read_text(encoding='utf-8')}</script>\n"
    with atomic(page) as temporary:
        temporary.write_text(HEAD.replace("{title}", escape(title)) + body + "</body>\n</html>\n", encoding="utf-8")
