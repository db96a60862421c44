"""Document: one HTML file from the built page and its data, which needs nothing else and asks for nothing else.

The data are compressed tensors, recorded answers and the names of what was left out, within a limit. Uses arrays and
JSON; no models.
"""

import hashlib
import html
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convscope import server
from convscope.errors import UsageError
from convscope.json_values import plain_value
from convscope.server.traces.array_pictures import pack
from convscope.typing import Array

BUILT = Path(server.__file__).parent / "static/standalone"
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
        from convscope.server.http.page import MISSING  # noqa: PLC0415  # routes, which a built page does without

        raise UsageError(MISSING) from None
    return script, style


def document(title: str, data: str, words: str) -> str:
    """The file: script and style are inline and named by their hashes, so that the browser runs nothing else.

    Args:
        title: The title of the page; any text.
        data: What `PageContents.encoded` returns.
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


ENLARGED = 4 / 3
"""Size of base64, of one byte."""
LEVEL = 6
SAMPLE = 20_000
"""Numbers of which the size of a large tensor is estimated."""


class PageContents:
    """What a page carries. Each addition is made only if it keeps the page within the limit.

    >>> contents = PageContents(1000)
    >>> contents.tensor(np.zeros((2, 3), np.float32)), contents.tensor(np.zeros(6, np.float32))
    (0, 1)
    >>> contents.tensor(np.random.default_rng(0).random(1000)) is None
    True

    Args:
        limit: Bytes of the data in base64.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[tuple[bytes, tuple[int, ...], str], int] = {}
        self._tensors: list[dict[str, object]] = []
        self._parts: list[bytes] = []
        self.size = 0.0
        """Bytes so far, in base64."""

    def tensor(self, array: Array, share: float = 1.0) -> int | None:
        """Add a tensor, unless the same is there already; returns its number, None if there is no room.

        Args:
            array: bool, integers and narrow floats are stored as float32, bytes as bytes.
            share: The share of the limit up to which this tensor may go.
        """
        stored = _stored(array)
        kind = f"{stored.dtype.kind}{stored.itemsize}"
        key = (hashlib.sha256(stored.data).digest(), array.shape, kind)
        if key in self._known:
            return self._known[key]
        if not self._fits(_least(stored), share):
            return None
        content = zlib.compress(_by_significance(stored), LEVEL)
        if not self._take(len(content) + 60, share):
            return None
        offset = sum(map(len, self._parts))
        self._tensors.append({"shape": list(array.shape), "type": kind, "offset": offset, "length": len(content)})
        self._parts.append(content)
        self._known[key] = len(self._tensors) - 1
        return self._known[key]

    def room_for(self, answer: object, share: float = 1.0) -> bool:
        """Whether a part of the header still fits, and if so, count it, compressed by itself."""
        return self._take(len(zlib.compress(json.dumps(plain_value(answer)).encode(), 1)), share)

    def _fits(self, more: float, share: float) -> bool:
        return self.size + more * ENLARGED <= self._limit * share

    def _take(self, more: float, share: float) -> bool:
        fits = self._fits(more, share)
        if fits:
            self.size += more * ENLARGED
        return fits

    def encoded(self, header: Mapping[str, object]) -> str:
        """Header and tensors as the page reads them."""
        text = json.dumps(plain_value({**header, "tensors": self._tensors}), allow_nan=False, separators=(",", ":"))
        head = zlib.compress(text.encode("utf-8", "replace"), 9)
        return b64encode(pack({"header": len(head)}, [head, *self._parts])).decode()


def _stored(array: Array) -> Array:
    kinds = {"u1": "u1", "f8": "<f8"}
    plain = np.abs(array) if array.dtype.kind == "c" else array
    with np.errstate(all="ignore"):
        stored: Array = np.ascontiguousarray(plain, kinds.get(f"{plain.dtype.kind}{plain.dtype.itemsize}", "<f4"))
        return stored


def _least(array: Array) -> float:
    """About how small it can become, from a sample of a large one, so that what cannot fit is not compressed."""
    every = array.size // SAMPLE
    if every < 2:
        return 0.0
    return 0.6 * every * len(zlib.compress(_by_significance(array.reshape(-1)[::every]), 1))


def _by_significance(array: Array) -> bytes:
    """The first byte of every number, then the second of every one: equal exponents side by side compress better."""
    return np.ascontiguousarray(
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T
    ).tobytes()
