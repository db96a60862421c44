"""Execute a lesson: one namespace, block after block, screen after screen.

A stop, an address of the explorer that the lesson leads to, is checked against the model that it shows.
"""

import ast
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

import convscope as cs
from convscope.errors import ConvscopeError, LessonError, UsageError
from convscope.lessons.lesson import Block, Code, Lesson, Question, Stop, Text
from convscope.lessons.questions import Answer, Asked, answer_of
from convscope.lessons.values import Namespace, Output, blanked, described, evaluate, explanation_of, fill, output_of
from convscope.models.loading import load_model
from convscope.type_checks import takes


@dataclass(frozen=True, slots=True)
class ShownText:
    """Markdown with its values filled in."""

    markdown: str


@dataclass(frozen=True, slots=True, eq=False)
class ShownCode:
    """Code with its output."""

    source: str
    output: Output


@dataclass(frozen=True, slots=True, eq=False)
class ShownStop:
    """A place in the explorer, with the model and the image that it shows."""

    model: cs.Module | cs.Run | str
    """A module, a run, or a name as `cs.load_model` takes it."""
    image: cs.ModelInput | None
    """As `cs.load_image` takes it; None: the model's own sample."""
    page: str
    command: str
    caption: str


Shown = ShownText | ShownCode | Asked | ShownStop


@dataclass(slots=True)
class LessonSession:
    """A lesson while it is executed; `namespace` has its variables.

    >>> from convscope.lessons.parsing import parse
    >>> page = "---\\ntitle: T\\nminutes: 5\\nneeds: nothing\\n---\\n```python\\na = 2\\na + 1\\n```\\n"
    >>> session = LessonSession(parse(page))
    >>> [[shown.output.text for shown in screen] for screen in session.screens()]
    [['3']]

    Raises:
        LessonError: its code fails; the message names the line.
    """

    lesson: Lesson
    short: bool = False
    execute: bool = True
    """Whether its code runs. Otherwise nothing of it does: values are shown as "…", questions without their answers."""
    namespace: Namespace = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.namespace |= {"__name__": "__main__", **self.lesson.settings_of(self.short)}

    def screens(self) -> Iterator[list[Shown]]:
        """Execute screen after screen, each when it is asked for."""
        for screen in self.lesson.screens:
            yield [self.show(block) for block in screen]

    def show(self, block: Block) -> Shown:
        """Execute one block."""
        if not self.execute:
            return _unexecuted(block)
        location = f"{self.lesson.name}, line {block.line}"
        match block:
            case Text():
                return ShownText(fill(block.source, self.namespace, location))
            case Code():
                return ShownCode(block.source, self._run(block))
            case Question():
                return ask(block, self.namespace, self.lesson.name)
            case Stop():
                return ShownStop(
                    model=self.namespace.get(block.model, block.model),
                    image=self.namespace.get(block.image, block.image) if block.image else None,
                    page=block.page,
                    command=fill(block.command, self.namespace, location),
                    caption=fill(block.caption, self.namespace, location),
                )

    def teacher(self) -> list[str]:
        """The section for the teacher, filled in; after all screens."""
        if not self.execute:
            return [blanked(block.source) for block in self.lesson.teacher]
        return [
            fill(block.source, self.namespace, f"{self.lesson.name}, line {block.line}")
            for block in self.lesson.teacher
        ]

    def _run(self, code: Code) -> Output:
        printed = io.StringIO()
        try:
            tree = ast.increment_lineno(ast.parse(code.source), code.line - 1)
            last = tree.body[-1] if tree.body else None
            with redirect_stdout(printed):
                if not isinstance(last, ast.Expr):
                    exec(compile(tree, self.lesson.name, "exec"), self.namespace)  # the user chose to run it
                    return output_of(None, printed.getvalue())
                del tree.body[-1]
                exec(compile(tree, self.lesson.name, "exec"), self.namespace)
                value = eval(compile(ast.Expression(last.value), self.lesson.name, "eval"), self.namespace)
        except (Exception, SystemExit) as error:
            line = _line_of(error, self.lesson.name) or code.line
            raise LessonError(f"{self.lesson.name}, line {line}: {described(error)}.") from error
        return output_of(value, printed.getvalue())


def _unexecuted(block: Block) -> Shown:
    """A block of a lesson whose code does not run."""
    match block:
        case Text(source=source):
            return ShownText(blanked(source))
        case Code(source=source):
            return ShownCode(source, Output())
        case Stop():
            return ShownStop(
                block.model, block.image or None, block.page, blanked(block.command), blanked(block.caption)
            )
        case Question():
            choices = "".join(f"\n- {blanked(text)}" for text in block.choices.values())
            return ShownText(f"**Question.** {blanked(block.ask)}\n{choices}".strip())


def _line_of(error: BaseException, file: str) -> int | None:
    """The last line of the lesson that an error passed."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def ask(question: Question, namespace: Namespace, lesson: str) -> Asked:
    """A question with its answer calculated in a namespace.

    Raises:
        LessonError: an expression fails, or its value is not an answer.
    """
    location = f"{lesson}, question {question.name!r}"

    def answer(expression: str) -> Answer:
        if expression in question.choices:  # a choice may be written without quotes
            return expression
        try:
            return answer_of(evaluate(expression, namespace, location))
        except (TypeError, ValueError) as error:
            if isinstance(error, ConvscopeError):
                raise
            raise LessonError(
                f"{location}: {expression[:80]!r} is not a number, numbers, text, True or False."
            ) from None

    right = answer(question.answer)
    if isinstance(right, str) and right not in question.choices:
        raise LessonError(f"{location}: its answer {right!r} is not among its choices.")
    if question.why:
        because = Output(prose=fill(question.why, namespace, location))
    else:
        because = explanation_of(evaluate(question.because, namespace, location))
    tolerance = answer_of(evaluate(question.tolerance, namespace, location)) if question.tolerance else None
    if not isinstance(tolerance, float | None) or (tolerance is not None and not np.isfinite(tolerance)):
        raise LessonError(f"{location}: tolerance is not a number.")
    return Asked(
        name=question.name,
        ask=fill(question.ask, namespace, location),
        answer=right,
        choices={value: fill(text, namespace, location) for value, text in question.choices.items()},
        tolerance=tolerance,
        because=because,
        wrong=tuple(
            (answer(mistake.answer), fill(mistake.misconception, namespace, location)) for mistake in question.wrong
        ),
    )


# Stops


VIEWS = ("look", "change", "train", "compare", "probe", "kernels")
"""The views of the page, as web/src/lib/state.svelte.ts lists them; a test compares both."""
PARTS = (
    "view", "origin", "change", "edits", "at", "fit", "step", "channel", "cell", "window", "trail", "why", "back",
    "slide", "pixels", "shared", "sort", "contrast", "hide", "open", "layer", "kernel", "question", "asked",
)  # fmt: skip
"""The parts of an address that a stop may have."""
WORDS = ("image", "softmax")
"""Steps of an address that are not steps of the trace."""


@takes(stop="ShownStop")
def model_of(stop: ShownStop) -> cs.Module:
    """The module that a stop shows.

    Raises:
        ConvscopeError: there is no such model.
    """
    if isinstance(stop.model, str):
        return load_model(stop.model)
    return stop.model.model if isinstance(stop.model, cs.Run) else stop.model


@takes(stop="ShownStop")
def check_stop(stop: ShownStop, *, trusted: bool = True) -> Iterator[str]:
    """What of a stop does not exist, as sentences.

    Args:
        stop: The stop.
        trusted: Whether the lesson's code is executed. Otherwise its stops may name only built-in networks and images
            of built-in data sets, as a name could also refer to code or to any file.
    """
    if not trusted:
        refused = list(_unsafe(stop))
        yield from refused
        if refused:
            return
    try:
        model = model_of(stop)
        parts = dict(parse_qsl(stop.page, keep_blank_values=True, max_num_fields=50))
        image = stop.image if stop.image is not None else cs.random_image(model)
        trace = cs.trace(model, cs.load_image(image, like=model) if isinstance(image, str) else image)
    except ConvscopeError as error:
        yield str(error)
        return
    except ValueError as error:  # of parse_qsl
        yield f"the page's address cannot be read: {error}."
        return
    yield from _unknown_parts(parts)
    yield from _misplaced(parts, trace)


def _unsafe(stop: ShownStop) -> Iterator[str]:
    if stop.model not in cs.MODELS:
        yield f"the model {stop.model!r} is not built in; the lesson's code would make it, and that is not executed."
    if stop.image is not None and str(stop.image).partition(":")[0] not in cs.DATASETS:
        yield f"the image {stop.image!r} is not one of a built-in data set; the lesson's code is not executed."


def _unknown_parts(parts: Mapping[str, str]) -> Iterator[str]:
    settings = () if "question" not in parts else tuple(parts)  # then every other part is a setting of the question
    for name, value in parts.items():
        if name in {"model", "input"}:
            yield f"page: {name} does not belong into the address; the keys model and image decide it."
        elif name not in PARTS and name not in settings:
            yield f"page: the explorer's address has no part {name!r}; it has {', '.join(PARTS)}."
        elif name == "view" and value not in VIEWS:
            yield f"page: no view is called {value!r}; there are {', '.join(VIEWS)}."
        elif name == "question" and value not in cs.probe.PROBES:
            yield f"page: no question is called {value!r}; there are {', '.join(cs.probe.PROBES)}."


def _misplaced(parts: Mapping[str, str], trace: cs.Trace) -> Iterator[str]:
    layer = parts.get("layer")
    if layer is not None and layer not in trace.parameters:
        yield f"page: the model has no parameter {layer!r}; it has {', '.join(trace.parameters)}."
    name = parts.get("step")
    if name is None or name in WORDS:
        return
    try:
        step = trace[name.removeprefix(":")]
    except UsageError as error:
        yield f"page: {error}"
        return
    shape = step.shape[1:]
    cell = parts.get("cell", "")
    if cell and not (
        re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})*", cell)
        and len(cell.split(".")) == len(shape)
        and all(int(index) < size for index, size in zip(cell.split("."), shape, strict=True))
    ):
        first = ".".join("0" for _ in shape)
        last = ".".join(str(size - 1) for size in shape)
        yield f"page: {name} has no cell {cell!r}; its cells are {first} to {last}."


RUN = re.compile(r"(?<=\s)runs/[\w.-]+")


@takes()
def with_runs_in(command: str, folder: str | Path | None = None) -> str:
    """A command for another terminal: runs of the lesson are named by their path in its working folder, by default
    the current one.

    >>> with_runs_in("convscope open runs/no-such-run", Path("/tmp"))
    'convscope open runs/no-such-run'
    """
    where = Path.cwd() if folder is None else Path(folder)
    return RUN.sub(lambda run: str(where / run[0]) if (where / run[0]).is_dir() else run[0], command)


@contextmanager
def in_temporary_folder() -> Iterator[Path]:
    """A working folder that is removed at the end of the block, so that a lesson may write files."""
    former = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="convscope-lesson-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(former)
