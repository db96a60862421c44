"""The commands that teach: lesson, notebook."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

import convscope as cs
from convscope.cli.console import out, out_is_terminal, remark, say, show_json, show_table, show_text
from convscope.cli.explorer import AllowHost, Host, NoBrowser, Port, give_way, stay
from convscope.cli.options import Commands, Json

TITLE = re.compile(r"^## (.+)$", re.MULTILINE)
"""The title of a section."""


def lesson(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE.md]", help="A lesson of the list, or a Markdown file of your own."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="In the terminal, instead of beside the explorer.")] = False,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Print the section for the teacher, and all answers.")
    ] = False,
    run: Annotated[
        bool, typer.Option("--run", help="Execute the code of FILE.md: do so only if you trust it.")
    ] = False,
    short: Annotated[bool, typer.Option("--short", help="Train less, to be quick; the numbers differ.")] = False,
    port: Port = None,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
    no_browser: NoBrowser = False,
    as_json: Json = False,
) -> None:
    """Take a lesson beside the explorer, or in the terminal; without a name, list them: `convscope lesson crosses`."""
    if name is None:
        _list(as_json)
        return
    loaded = cs.lessons.find_lesson(name)
    if as_json:
        show_json(_described(loaded))
        return
    is_file = cs.lessons.is_file_name(name)
    if is_file and not run:
        remark(
            f"note: the code in {loaded.name} is not executed, so it shows no numbers and checks no answers. "
            "Code can do anything that you can do: if you trust it, use --run."
        )
    session = cs.lessons.LessonSession(loaded, short or cs.lessons.is_short(), execute=run or not is_file)
    with cs.lessons.in_temporary_folder() as folder:
        if teacher:
            _teach(session)
        elif text:
            TerminalLesson(session, folder).take()
        else:
            give_way()
            browser = out_is_terminal() and not no_browser
            stay(cs.serve_lesson(session, host=host, port=port, allow_hosts=allow_host or (), browser=browser))


def notebook(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is missing.")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE.md]", help="One lesson; by default all that come with convscope."),
    ] = None,
) -> None:
    """Write lessons as Jupyter notebooks: `convscope notebook lessons`."""
    for lesson_name in [name] if name else cs.lessons.LESSONS:
        path = cs.lessons.write_notebook(folder, lesson_name)
        say(f"wrote {path}")


def _list(as_json: bool) -> None:
    lessons = [cs.lessons.find_lesson(name) for name in cs.lessons.LESSONS]
    if as_json:
        show_json([_described(lesson) for lesson in lessons])
        return
    rows = [
        (lesson.name, str(lesson.tutorial or "–"), str(lesson.minutes), str(len(lesson.questions)), lesson.title)
        for lesson in lessons
    ]
    show_table(["name", "tutorial", "minutes", "questions", "title"], rows, right=["tutorial", "minutes", "questions"])
    say()
    say("convscope lesson NAME      take it beside the explorer, or with --text in the terminal")
    say("convscope notebook FOLDER  write all as Jupyter notebooks")


def _described(lesson: "cs.lessons.Lesson") -> dict[str, object]:
    return {
        "name": lesson.name,
        "title": lesson.title,
        "tutorial": lesson.tutorial,
        "minutes": lesson.minutes,
        "needs": lesson.needs,
        "questions": list(lesson.questions),
    }


def _teach(session: "cs.lessons.LessonSession") -> None:
    """The section for the teacher, then every question with its answer and calculation, below its section's title."""
    screens = list(session.screens())
    show_markdown(f"# {session.lesson.title}")
    for text in session.teacher():
        show_markdown(text)
    number = 0
    for screen in screens:
        for shown in screen:
            if isinstance(shown, cs.lessons.ShownText) and (title := TITLE.search(shown.markdown)):
                say()
                show_markdown(f"## {title[1]}")
            elif isinstance(shown, cs.lessons.Asked):
                number += 1
                _show_answer(number, shown)


def _show_answer(number: int, question: "cs.lessons.Asked") -> None:
    say()
    show_markdown(f"**{number}. {question.name}.** {question.ask}\n\nAnswer: **{question.shown(question.answer)}**\n")
    show_output(question.because)
    for answer, misconception in question.wrong:
        show_markdown(f"- {question.shown(answer)}: {' '.join(misconception.split())}")


class TerminalLesson:
    """A lesson in the terminal: text is printed, questions are asked until standard input ends."""

    def __init__(self, session: "cs.lessons.LessonSession", folder: Path) -> None:
        self._session = session
        self._folder = folder
        self._asking = session.execute
        self._pictures = 0
        self._judged: list[bool] = []

    def take(self) -> None:
        """The whole lesson."""
        lesson = self._session.lesson
        show_markdown(f"# {lesson.title}\n\nAbout {lesson.minutes} minutes. {lesson.needs}")
        for number, screen in enumerate(lesson.screens):
            if number and not self._goes_on():
                break
            for block in screen:
                self._show(block)
        if self._judged:
            say()
            say(f"{sum(self._judged)} of {len(self._judged)} answers were right at the first try.")

    def _show(self, block: "cs.lessons.Block") -> None:
        say()
        if isinstance(block, cs.lessons.Code):
            show_text("\n".join(f"    {line}" for line in block.source.strip("\n").split("\n")))
        shown = self._session.show(block)
        match shown:
            case cs.lessons.ShownText():
                show_markdown(shown.markdown)
            case cs.lessons.ShownCode():
                self._output(shown.output)
            case cs.lessons.ShownStop():
                show_markdown(f"**In the explorer:** {shown.caption}")
                if shown.command:
                    self._command(shown.command)
            case cs.lessons.Asked():
                self._ask(shown)

    def _command(self, command: str) -> None:
        """A command for another terminal; the lesson's runs are in its temporary folder."""
        absolute = cs.lessons.with_runs_in(command, self._folder)
        say(f"    {absolute}")
        if absolute != command:
            say("    (in another terminal, until the lesson ends)")

    def _output(self, output: "cs.lessons.Output") -> None:
        if output.figure is not None and not output.text:
            self._pictures += 1
            path = self._folder / f"{Path(self._session.lesson.name).stem}-{self._pictures}.png"
            output.figure.savefig(path, dpi=150)
            say(f"[picture: {path}, until the lesson ends]")
        show_output(output)

    def _ask(self, question: "cs.lessons.Asked") -> None:
        show_markdown(f"**Question.** {question.ask}")
        for number, text in enumerate(question.choices.values(), 1):
            show_markdown(f"{number}. {text}")
        while self._asking:
            reply = self._line("Your answer (Enter to skip, ? for the answer): ")
            if not reply:
                return
            if reply == "?":
                say()
                show_markdown(f"The answer is {question.solution()}")
                self._output(question.because)
                return
            try:
                verdict = question.judge(question.read(reply))
            except cs.lessons.AnswerError as error:
                remark(str(error))
                continue
            self._judged.append(verdict.right)
            say()
            show_markdown(verdict.text)
            self._output(verdict.because)
            return

    def _goes_on(self) -> bool:
        """Whether to show the next screen; asked only on a terminal."""
        if not (out_is_terminal() and sys.stdin.isatty()):
            return True
        say()
        return self._line("Press Enter to continue, or q to end: ").lower() not in {"q", "quit"}

    def _line(self, prompt: str) -> str:
        """A line of standard input; nothing more is asked once it has ended."""
        out.print(prompt, end="", markup=False)
        line = sys.stdin.readline()
        if not line:
            self._asking = False
        if not sys.stdin.isatty():
            say(line.rstrip("\n"))
        return line.strip()


def show_output(output: "cs.lessons.Output") -> None:
    """Print what a block or a calculation printed or returned, without figures."""
    if output.printed or output.text:
        say()
        show_text("\n".join(part for part in (output.printed.rstrip("\n"), output.text) if part))
        say()
    if output.prose:
        show_markdown(output.prose)


def show_markdown(text: str) -> None:
    """Print Markdown: formatted on a terminal, and as it is elsewhere."""
    lines = "\n".join(map(cs.spelled, text.split("\n")))
    if out_is_terminal():
        out.print(Markdown(lines, hyperlinks=False))
    else:
        show_text(text)


COMMANDS: Commands = {"lesson": lesson, "notebook": notebook}
