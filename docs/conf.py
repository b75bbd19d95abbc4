"""Sphinx settings of the site; saliency_lib.book.site stages its pages and calls Sphinx."""

from importlib import metadata

from saliency_lib.book import explorer

project = "How much of a saliency map is noise?"
author = "the authors of the companion"
version = release = metadata.version("saliency-companion")
html_title = project

extensions = ["myst_nb", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "saliency_lib.book.mathml"]
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(explorer.SCRIPT)]
html_css_files = ["site.css"]
html_js_files = [explorer.SCRIPT.name]
html_show_sphinx = False
html_copy_source = True
html_theme_options = {
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "search_bar_text": "Search this site",
    "navbar_persistent": [],  # the sidebar has the search already
}

# Readable from the file system, without a network: formulas are MathML, notebooks keep the outputs that they have, and
# no widget asks for its manager.
html_math_renderer = "mathml"
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False
