"""The documentation site: `make site` builds it into docs/_build/html, a folder that works without a server."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import kept  # noqa: E402
import paper_pages  # noqa: E402
import reference  # noqa: E402
import rooms  # noqa: E402

from meta_icl import __version__  # noqa: E402

project, author, release = "meta_icl", "The meta_icl developers", __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.githubpages"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "meta_icl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_copyright = False
templates_path = []
default_role = "code"  # docstrings write code in single backticks
smartquotes = False
add_module_names = False
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks come with their outputs: `make notebooks`
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"


def write_pages(app):
    """Before anything is read: the pages that are made from the code and from `results/`."""
    paper_pages.write(kept.papers(), HERE, "../..")
    paper_pages.put(HERE, reference.pages() | {"rooms.svg": rooms.drawing()})


def offer_colab(app, pagename, templatename, context, doctree):
    """On pages of notebooks, where the site is built for a repository on GitHub: a link that opens them in Colab."""
    repository = os.environ.get("GITHUB_REPOSITORY", "")  # owner/name, as GitHub's own builders say
    if repository and pagename.startswith("notebooks/"):
        address = f"https://colab.research.google.com/github/{repository}/blob/main/docs/{pagename}.ipynb"
        install = f"<code>%pip install git+https://github.com/{repository}</code>"
        link = f'<a class="colab" href="{address}">Open in Colab</a>, where the first cell to run is {install}'
        context["body"] = f"<p>{link}</p>{context['body']}"


def setup(app):
    """What Sphinx calls."""
    app.connect("builder-inited", write_pages)
    app.connect("html-page-context", offer_colab)
    app.connect("autodoc-process-docstring", reference.escape)
    app.connect("autodoc-process-signature", reference.shorten)
    app.connect("autodoc-skip-member", reference.is_field_of_a_tuple)
