"""Print the OpenAPI document that the page's TypeScript types are generated from.

Run as `python -m convscope.server.openapi`.
"""

import json
import sys

from convscope.server.app import make_app
from convscope.server.http.security import Access


def document() -> str:
    """The server's routes and schemas as an OpenAPI document in JSON."""
    return json.dumps(make_app(None, Access("")).openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
