"""Sphinx's settings for the site. `docs/site/build.py` calls Sphinx."""

from minigpt.version import REPOSITORY, __version__

project = "Mini-Gpt"
author = "The authors of Mini-Gpt"
project_copyright = "the authors of Mini-Gpt, MIT license"
version = release = __version__
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Pages
myst_heading_anchors = 6  # as GitHub makes them, so that the pages' links work in both places
myst_enable_extensions = ["html_image"]
suppress_warnings = ["ref.python"]  # an attribute named like a type, such as `bytes`

# The API reference
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False
autodoc_default_options = {"exclude-members": "set"}  # Matplotlib adds this method to the class of a figure
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"  # a docstring's `name`
# A type in a signature may be private, or of a library whose pages are on another host.
nitpick_ignore_regex = [(r"py:class", r".*"), (r"py:.*", r"(?!minigpt\.).*")]

# The look. furo loads no font, script or style from another host.
html_theme = "furo"
html_title = "Mini-Gpt"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
if REPOSITORY:
    html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
