"""Sphinx's settings; `make docs` builds with every warning an error."""

from mmmos import __version__

project = "MMMOS"
author = copyright = "The MMMOS authors"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"MMMOS {__version__}"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]
