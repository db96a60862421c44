"""Download: one file from the first mirror that gives it whole, kept in the user's cache. Knows no data set."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from convscope.errors import DownloadError
from convscope.progress import Progress

HTTP = {
    "timeout": (10, 30),  # seconds to connect, and between two pieces
    "headers": {"Accept-Encoding": "identity"},  # or a server may unpack a .gz file on its way
    "chunk_size": 1 << 16,
}


def cache_folder() -> Path:
    """Where downloads are kept: `~/.cache/convscope` on Linux, its like elsewhere."""
    import pooch  # noqa: PLC0415  # it takes a fifth of a second, which most data sets need not wait for

    return Path(pooch.os_cache("convscope"))


def download(urls: Sequence[str], target: Path, is_good: Callable[[bytes], bool], progress: Progress) -> bytes:
    """Bring the first good file of `urls` to `target`, as a whole or not at all.

    Args:
        urls: The same file on several servers, tried in this order.
        target: Where to put it; its folder is made.
        is_good: Whether a downloaded file's content is the right one.
        progress: Told the bytes of each attempt.

    Returns:
        The file's content.

    Raises:
        DownloadError: no server gave it, or it cannot be written; the message names each server's reason.
    """
    reasons = []
    for url in urls:
        content, reason = _attempt(url, target, is_good, progress)
        if content is not None:
            return content
        reasons.append(f"{urlsplit(url).netloc}: {reason}")
    raise DownloadError(f"{target.name} cannot be downloaded ({'; '.join(reasons)}).")


def _attempt(url: str, target: Path, is_good: Callable[[bytes], bool], progress: Progress) -> tuple[bytes | None, str]:
    """The content where it is good, and now at `target`; else the reason."""
    import pooch  # noqa: PLC0415  # as above

    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".download-", delete=False) as file:
            temporary = Path(file.name)
            bar = _Bar(f"downloading {target.name}", progress)
            pooch.HTTPDownloader(progressbar=bar, **HTTP)(url, file, None)
        content = temporary.read_bytes()
        good = is_good(content)
        if good:
            temporary.replace(target)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk: the network's errors have no number of their own
            raise DownloadError(f"{target.parent} cannot be written: {getattr(error, 'strerror', error)}.") from None
        return None, _reason(error)
    else:
        return (content, "") if good else (None, "it gave another file, the checksum is wrong")
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Why the network gave nothing, in a word; its own messages are paragraphs."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    reasons = {"Timeout": "no answer in time", "Encoding": "the connection broke off"}
    return next((reason for name, reason in reasons.items() if name in type(error).__name__), "no connection")


class _Bar:
    """What pooch takes for a progress bar: it sets `total`, then calls the rest."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress = what, progress
        self.total, self.done = 0, 0

    def update(self, count: int) -> None:
        if self.done == 0:
            self.progress(self.what, 0, self.total)
        self.done = min(self.done + count, self.total) if self.total else self.done + count
        self.progress(self.what, self.done, self.total)

    def reset(self) -> None:
        """Called at the end, before the last `update(total)`."""

    def close(self) -> None:
        """Called last."""
