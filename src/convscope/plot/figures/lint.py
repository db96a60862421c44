"""Lint: the mistakes that were found, with their evidence, as a page to hand out."""

import textwrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from convscope.plot.canvas.sheet import LABEL, SMALL, Sheet
from convscope.plot.canvas.style import ACCENT, INK, MUTED
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.probe.linting.findings import Lint

LINE = 100  # letters
WRONG = "#b2182b"


@takes(found="Lint")
def lint(found: "Lint") -> Figure:
    """Write out each mistake with what was seen, why it matters and what to do; and what was looked for.

    >>> import numpy as np, convscope as cs
    >>> figure = lint(cs.probe.lint(kernels={"horizontal": np.array([[-1, 0, 1]] * 3)}))
    >>> "kernel-title" in [t.get_text() for t in figure.axes[0].texts]
    True

    Args:
        found: The result of `cs.probe.lint`.
    """
    sheet = Sheet()
    on = f" · run on {found.images:,} images" if found.images else ""
    y = (
        sheet.header(f"{found.subject}: {_said(len(found.findings))}", f"{_count(len(found.looked_for), 'check')}{on}")
        + 0.2
    )
    for finding in found.findings:
        sheet.text(0, y, finding.check, points=LABEL, bold=True, color=WRONG)
        y += 0.17
        parts = (
            ("seen", finding.evidence, INK),
            ("why", finding.lesson.why, MUTED),
            ("do", finding.lesson.remedy, MUTED),
        )
        for word, text, color in parts:
            sheet.text(0, y, word, points=SMALL, color=MUTED)
            for line in textwrap.wrap(text, LINE, break_on_hyphens=False):
                sheet.text(0.4, y, line, points=SMALL, color=color)
                y += 0.15
        y += 0.14
    for mark, names, color in (("not found", _clean(found), ACCENT), ("not looked for", list(found.skipped), MUTED)):
        if names:
            sheet.text(0, y, mark, points=SMALL, color=color, bold=True)
            for line in textwrap.wrap(", ".join(names), LINE - 10, break_on_hyphens=False):
                sheet.text(0.9, y, line, points=SMALL, color=MUTED)
                y += 0.15
            y += 0.08
    return sheet.finish()


def _clean(found: "Lint") -> list[str]:
    wrong = {finding.check for finding in found.findings}
    return [name for name in found.looked_for if name not in wrong]


def _said(count: int) -> str:
    return f"{_count(count, 'mistake')} found" if count else "no mistake found"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
