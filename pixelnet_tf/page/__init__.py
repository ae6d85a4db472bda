"""The pages that `view`, `serve` and the report show, as scripts/build_viewer.sh makes them."""

from __future__ import annotations

from importlib import resources

#: The files of a page, and what they are; each page is one HTML file of its own beside the two
#: others.
MEDIA_TYPES = {"view.html": "text/html; charset=utf-8", "segment.html": "text/html; charset=utf-8",
               "viewer.js": "text/javascript; charset=utf-8",
               "viewer.css": "text/css; charset=utf-8"}
#: Everything comes from the server that shows the page. NiiVue reads the font of its letters from a
#: picture that lies in its own code (`img-src data:`); as it is built here it needs neither `eval`,
#: WebAssembly, workers nor styles in markup. No script may turn text into markup.
CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'"))


def read_page(name: str) -> bytes:
    """Return a file of `MEDIA_TYPES`."""
    return (resources.files(__name__) / name).read_bytes()


def page_paths(page: str) -> dict[str, str]:
    """Path under which a page asks for it -> file, the page itself at `/`."""
    return {"/": page, "/viewer.js": "viewer.js", "/viewer.css": "viewer.css"}
