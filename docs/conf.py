"""How scripts/docs makes the site. A broken link or anchor fails, and so does a page outside the navigation."""

project = "lastcall"
author = "lastcall contributors"
extensions = ["myst_parser"]
exclude_patterns = ["conf.py"]

myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = "lastcall"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"footer_icons": []}
# The system's own fonts: a page that fetched others would tell their host who reads it.
pygments_style = "friendly"
pygments_dark_style = "monokai"
