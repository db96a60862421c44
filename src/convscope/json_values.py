"""JSON values: plain values without NaN and infinities, which JSON lacks, and text from untrusted sources, parsed."""

import json
import math
from collections.abc import Mapping
from typing import Any

from convscope.escaping import STEERING

DIGITS = 300
"""Maximum number of characters of an integer; a few more, and it exceeds every float."""


def plain_number(number: float) -> float | str:
    """A number; "nan", "inf" and "-inf" for what JSON has no numbers for.

    >>> plain_number(-math.inf), plain_number(1)
    ('-inf', 1.0)
    """
    return float(number) if math.isfinite(number) else str(float(number))


def plain_value(value: object) -> object:
    """The value with nan and infinities as text, and tuples as lists.

    >>> plain_value({"loss": math.nan, "steps": (1, 2)})
    {'loss': 'nan', 'steps': [1, 2]}
    """
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, Mapping):
        return {key: plain_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(part) for part in value]
    return value


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text from an untrusted source.

    >>> parse_json('{"epochs": 5}')
    {'epochs': 5}

    Raises:
        ValueError: it is not JSON, not UTF-8, nested too deeply, or has a number of more than `DIGITS` digits.
    """
    try:
        return json.loads(text, parse_int=_int)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _int(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"it has a number of {len(text.lstrip('-')):,} digits")
    return int(text)


def json_text(value: object) -> str:
    """The `to_json()` of a result as `--json` prints it, valid for any JSON parser.

    >>> print(json_text({"loss": float("nan")}))
    {
     "loss": "nan"
    }
    """
    text = json.dumps(plain_value(value), indent=1, ensure_ascii=False)
    # its own newlines stay; all others are escaped already, as JSON wants it
    return STEERING.sub(lambda match: match.group() if match.group() == "\n" else json.dumps(match.group())[1:-1], text)
