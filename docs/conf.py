"""Sphinx' configuration; `bash scripts/docs.sh` builds the site.

The source folder is the project's, so that the pages link to each other as they do in a checkout.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import pixelnet_tf  # noqa: E402 - the path comes first.

project = "pixelnet-tf"
author = "The pixelnet-tf maintainers"
copyright = author
version = release = pixelnet_tf.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser",
              "sphinx_gallery.gen_gallery"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]
exclude_patterns = ["docs/templates/**", "docs/gallery/*.ipynb", "docs/gallery/*.py",
                    "docs/gallery/sg_execution_times*"]

html_theme = "furo"
html_title = f"pixelnet-tf {release}"
html_show_copyright = False

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

templates_path = [str(ROOT / "docs" / "templates")]
autosummary_generate = True
autodoc_typehints = "none"  # The signature and numpydoc's sections say them.
autodoc_inherit_docstrings = False  # Those of Keras are not in this form.
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

#: Hidden in the pages themselves, which are read in a checkout, too.
CONTENTS = {
    "README": {
        "Begin": ["docs/tutorial", "docs/gallery/index"],
        "How to": ["docs/howto", "docs/own_data", "docs/plans", "docs/dicom_bids", "docs/training",
                   "docs/measures", "docs/viewer", "docs/scale", "docs/trust", "docs/serving",
                   "docs/caffe"],
        "Reference": ["docs/reference", "docs/configuration"],
        "Why": ["docs/explanation", "docs/architecture", "docs/benchmarks", "docs/lgg_study"],
        "Project": ["CONTRIBUTING", "CHANGELOG", "SECURITY"],
    },
}


def adapt_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lead links to examples to their pages; put the table of contents below its page."""
    source[0] = re.sub(r"\]\((?:\.\./)?examples/(\w+)\.py\)", r"](/docs/gallery/\1.rst)",
                       source[0])
    for caption, pages in CONTENTS.get(docname, {}).items():
        listed = "\n".join(f"/{page}" for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def sign_by_init(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None,
                 returns: str | None) -> tuple[str | None, str | None]:
    """Keras' classes take anything in `__new__`; what they want stands in `__init__`."""
    if what == "class" and signature == "(*args, **kwargs)":
        own = inspect.signature(obj.__init__)
        own = own.replace(parameters=[
            each.replace(annotation=inspect.Parameter.empty)
            for each in list(own.parameters.values())[1:]])
        return str(own.replace(return_annotation=inspect.Signature.empty)), None
    return signature, returns


sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery_parts.CourseOrder",
    "image_scrapers": ("gallery_parts", "matplotlib"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1,
    "show_memory": False,
}
# The examples' own progress is not a message of the build.
for name in ("pixelnet_tf", "absl", "tensorflow"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")


def setup(app: Sphinx) -> None:
    app.connect("source-read", adapt_page)
    app.connect("autodoc-process-signature", sign_by_init)
