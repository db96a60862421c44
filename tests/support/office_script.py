"""Talks to a running LibreOffice: one request per line in, one answer per line out. Run by the system's Python."""

import json
import sys
import time
from typing import Any


def connected(pipe: str) -> Any:
    """The desktop of LibreOffice, once it is there."""
    import uno  # type: ignore[import-not-found]
    from com.sun.star.connection import NoConnectException  # type: ignore[import-not-found]

    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
    for _ in range(300):
        try:
            context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
        except NoConnectException:
            time.sleep(0.2)
        else:
            return context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
    raise TimeoutError("LibreOffice did not answer")


def hidden() -> Any:
    """The options under which a workbook is opened."""
    from com.sun.star.beans import PropertyValue  # type: ignore[import-not-found]

    option = PropertyValue()
    option.Name, option.Value = "Hidden", True
    return (option,)


def answer(desktop: Any, held: list[Any], request: dict[str, Any]) -> Any:
    """The answer to one request."""
    if request["what"] == "load":
        for document in held:
            document.close(True)
        begun = time.perf_counter()
        held[:] = [desktop.loadComponentFromURL(request["path"], "_blank", 0, hidden())]
        return time.perf_counter() - begun
    if request["what"] == "end":
        for document in held:
            document.close(True)
        desktop.terminate()
        return True
    sheet = held[0].Sheets.getByName(request["sheet"])
    if request["what"] == "values":
        cursor = sheet.createCursor()
        cursor.gotoEndOfUsedArea(False)
        last = cursor.RangeAddress
        return sheet.getCellRangeByPosition(0, 0, last.EndColumn, last.EndRow).DataArray
    cell = sheet.getCellRangeByName(request["cell"])
    if request["what"] == "set":
        cell.Value = request["value"]
        return True
    return [part.AbsoluteName for part in each(cell.queryPrecedents(False))]


def each(ranges: Any) -> Any:
    """The ranges of a collection."""
    return (ranges.getByIndex(place) for place in range(ranges.Count))


def main() -> None:
    """Answer until there are no more requests."""
    desktop, held = connected(sys.argv[1]), []  # type: ignore[var-annotated]
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(answer(desktop, held, request)) + "\n")
        sys.stdout.flush()
        if request["what"] == "end":
            return


if __name__ == "__main__":
    main()
