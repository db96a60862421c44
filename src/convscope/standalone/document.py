"""Document: one HTML file from the built page and its data, which needs nothing else and asks for nothing else."""

import hashlib
import html
import re
from base64 import b64encode
from pathlib import Path

from convscope.errors import UsageError
from convscope.server.http import page

BUILT = page.STATIC / "standalone"
"""The page's script and style, built from web/src/standalone."""


def built(name: str) -> tuple[str, str]:
    """The script and the style of a page that runs without a server.

    Args:
        name: "report" or "widget".

    Raises:
        UsageError: the page was not built.
    """
    try:
        script, style = (Path(BUILT, f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    except FileNotFoundError:
        raise UsageError(page.MISSING) from None
    return script, style


def document(title: str, data: str, words: str) -> str:
    """The file: script and style are inline and named by their hashes, so that the browser runs nothing else.

    Args:
        title: Of the page; any text.
        data: What `Contents.encoded` gives.
        words: The main facts as text, for readers without JavaScript.
    """
    script, style = built("report")
    script = re.sub(
        r"</(?=script)|<!--", lambda match: match.group().replace("<", r"\x3c"), script, flags=re.IGNORECASE
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div id="app"></div>
<noscript><p>convscope draws every number with JavaScript; please allow it for this page.</p>
<pre>{html.escape(words)}</pre></noscript>
<script type="text/plain" id="data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
