"""Sphinx's settings; `make docs` builds with every warning an error."""

from mmmos import __version__

project = "MMMOS"
author = copyright = "The MMMOS authors"
version = release = __version__
extensions = ["myst_nb"]
exclude_patterns = ["_build", "example_plugin", "generate", "**/README.md", "README.md"]
html_theme = "furo"
html_title = f"MMMOS {__version__}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
smartquotes = False
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
suppress_warnings = ["misc.highlighting_failure"]
