"""What the gallery shows beside pyplot's figures, and in which order the examples stand."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

#: From the first steps to the last.
ORDER = ("first_segmentation.py", "hypercolumns.py", "balanced_sampling.py", "caffe_network.py",
         "served_model.py")


class CourseOrder:
    """Sorts the examples as a course has them."""

    def __init__(self, src_dir: str):
        self.src_dir = src_dir

    def __call__(self, filename: str) -> int:
        return ORDER.index(filename)


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Show the figures that an example holds in its variables; pyplot knows nothing of them."""
    paths = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not hasattr(value, "_in_gallery"):
            value._in_gallery = True
            # pyplot's have a manager, and are shown by sphinx-gallery's own scraper.
            if value.canvas.manager is None:
                paths.append(next(block_vars["image_path_iterator"]))
                value.savefig(paths[-1], dpi=80)
    return figure_rst(paths, gallery_conf["src_dir"])


def _get_sg_image_scraper() -> Any:
    """What sphinx-gallery calls, given this module's name."""
    return scrape
