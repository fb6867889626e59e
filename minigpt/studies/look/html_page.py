"""The HTML page of a shaded text: one file, without scripts and without links to other sites."""

import html

from minigpt.system.terminal import escape_control_characters

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --shade: 214, 39, 40; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --shade: 230, 70, 60; } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 52rem;
       margin: 2rem auto; padding: 0 1rem; }
pre { font: 15px/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
span { background: rgba(var(--shade), calc(var(--s) * 0.75)); }
table { border-collapse: collapse; } td, th { padding: 0.2rem 0.8rem; text-align: left; }
td { border-top: 1px solid #8888; }
"""


def make_page(title: str, body: str) -> str:
    """Return a page of HTML.

    Args:
        title: plain text.
        body: HTML. Each span in it is shaded by its style `--s`, from 0 to 1.
    """
    title = html.escape(escape_control_characters(title))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
