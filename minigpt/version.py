"""The version of the package, and where its public copy is."""

__version__ = "0.2.0"

# The address of the public copy, such as "https://github.com/OWNER/mini-gpt"; empty while there is none. After a
# change, `python release/links.py` writes the links of the notebook, CITATION.cff and pyproject.toml's metadata anew.
REPOSITORY = ""
