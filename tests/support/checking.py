"""Functions made from the checker's own tables: the reference of an operation, or a variant with one mistake."""

from collections.abc import Callable
from typing import Any

from convscope.checking.operation import CheckedOperation, Mistake


def learner(operation: CheckedOperation, mistake: Mistake | None) -> Callable[..., Any]:
    """A function with the operation's own parameter names that makes the mistake, or none."""
    names = ", ".join([*operation.arrays, *operation.settings])

    def run(values: dict[str, Any]) -> Any:
        results = mistake.run(operation.reference, values) if mistake else operation.reference(values)
        ordered = tuple(results[name] for name in operation.results)
        return ordered if len(ordered) > 1 else ordered[0]

    return eval(f"lambda {names}: run(dict({', '.join(f'{n}={n}' for n in names.split(', '))}))", {"run": run})  # type: ignore[no-any-return]
