"""Check the prose of sources and documents for wording that readers stumble over: `python scripts/check_prose.py`.

Comments, docstrings and messages of Python files, text of Markdown files outside code, and everything of the page's
sources are searched for the patterns below. Each hit is printed with its place and what to write instead.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEARCHED = ("src/convscope/**/*.py", "docs/**/*.md", "*.md", "web/src/**/*.svelte", "web/src/**/*.ts")
GENERATED = {"web/src/lib/schema.d.ts", "docs/reference/cli.md"}
WORDING: Mapping[str, str] = {
    r"(?<!there )\b(?:is|are|was|were) no (?!longer|more|less|fewer|other)\w": "'is not a ...' or 'without ...'",
    r"\b(?:some|no)body\b|\bwho(?:m)?ever\b": "name the person or the program, or use the passive",
    r"\bso many\b": "'that many', 'at most N' or a number",
    r"\b(?:is|are|was|were) told\b": "'receives', 'is notified of' or 'reports'",
    r"\b(?:is|are|was|were) said\b": "'is reported', 'is documented' or 'the message says'",
    r"\blies?\b": "'is in', 'is stored in', 'is outside'",
    r"\bTold (?:how|the|after|when)\b": "'Receives', 'Reports'",
    r"\bwhere it stands\b": "'its position'",
    r"\bstands? (?:in|on|at|there|here|beside|for it)\b": "'is in', 'is at'",
    r"\bwhat there is\b": "name what is listed",
    r"\b(?:mean|average) pool(?:s|ing) (?=laid)|\blaid out to\b": "'flatten to' or 'reshape to'",
    r"\bwho is taken for whom\b": "'confusion matrix'",
}
"""Pattern -> what to write instead."""


TEXT = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""Tokens that hold prose; from Python 3.12 on the text of f-strings is a token of its own."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that people read: number and text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in TEXT:
                yield from enumerate(token.string.splitlines(), token.start[0])
        return
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= path.suffix == ".md" and line.lstrip().startswith("```")
        if not fenced:
            yield number, re.sub(r"`[^`]*`", "", line) if path.suffix == ".md" else line


def main() -> int:
    """Print every hit; status 1 if there is one."""
    files = {path for pattern in SEARCHED for path in ROOT.glob(pattern)}
    hits = 0
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        if name in GENERATED:
            continue
        for number, line in prose(path):
            for pattern, advice in WORDING.items():
                for match in re.finditer(pattern, line, re.IGNORECASE):
                    hits += 1
                    print(f"{name}:{number}: {match.group(0)!r}: write {advice}")
    if hits:
        print(f"{hits} phrases to reword; scripts/check_prose.py lists them all.")
    return int(hits > 0)


if __name__ == "__main__":
    sys.exit(main())
