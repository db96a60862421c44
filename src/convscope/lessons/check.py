"""Check a lesson: execute it and report each mistake: `python -m convscope.lessons.check [--short] FILE.md`.

Besides code that runs, it checks that each misconception is wrong and gets its own text, that each stop exists, and
that every answer is still the same at the end, so that learners may run a notebook's cells again.
"""

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from convscope.errors import ConvscopeError
from convscope.lessons.lesson import Lesson
from convscope.lessons.parsing import LESSONS, find_lesson
from convscope.lessons.questions import Asked
from convscope.lessons.session import LessonSession, ShownStop, ask, check_stop, in_temporary_folder


def mistakes(lesson: Lesson, *, short: bool = False) -> list[str]:
    """The mistakes of a lesson, each as a sentence; code that fails ends the check. It runs in a temporary folder.

    >>> from convscope.lessons.parsing import parse
    >>> page = "---\\ntitle: T\\nminutes: 5\\nneeds: nothing\\n---\\n```python\\na = b\\n```\\n"
    >>> mistakes(parse(page))
    ["lesson, line 7: NameError: name 'b' is not defined."]
    """
    result: list[str] = []
    session = LessonSession(lesson, short)
    questions: dict[str, Asked] = {}
    with in_temporary_folder():
        try:
            for screen in session.screens():
                for shown in screen:
                    if isinstance(shown, Asked):
                        questions[shown.name] = shown
                        result += [
                            f"{lesson.name}, question {shown.name!r}: {problem}" for problem in judged_wrongly(shown)
                        ]
                    elif isinstance(shown, ShownStop):
                        result += [
                            f"{lesson.name}, stop {shown.caption[:40]!r}: {problem}" for problem in check_stop(shown)
                        ]
            session.teacher()
            result += changed(lesson, session, questions)
        except ConvscopeError as error:
            result.append(str(error))
    return result


def judged_wrongly(question: Asked) -> Iterator[str]:
    """What is wrong with a question: its answer or a misconception is judged otherwise than it should be."""
    if not question.judge(question.answer).right:
        yield "its own answer is not judged right (not a number?)."
    for number, (answer, text) in enumerate(question.wrong, 1):
        try:
            verdict = question.judge(question.check(answer))
        except ConvscopeError as error:
            yield f"misconception {number}: {error}"
            continue
        if verdict.right:
            yield f"misconception {number} is judged right."
        elif not verdict.text.startswith(text):
            yield f"misconception {number} gets the text of another one."


def changed(lesson: Lesson, session: LessonSession, questions: dict[str, Asked]) -> Iterator[str]:
    """Questions whose answer is another one at the end of the lesson."""
    for name, question in lesson.questions.items():
        again = ask(question, session.namespace, lesson.name)
        if not np.array_equal(again.answer, questions[name].answer):  # text and booleans too
            yield (
                f"{lesson.name}, question {name!r}: at the end of the lesson its answer is another one, as a later "
                "block uses one of its names for something else; choose another name there."
            )


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m convscope.lessons.check", description="Execute lessons and check them.")
    parser.add_argument("lessons", nargs="*", metavar="NAME|FILE.md", default=list(LESSONS))
    parser.add_argument("--short", action="store_true", help="use the short settings")
    options = parser.parse_intermixed_args(arguments)
    wrong = 0
    for name in options.lessons:
        try:
            lesson = find_lesson(name)
            lines = mistakes(lesson, short=options.short)
        except ConvscopeError as error:
            lines, lesson = [str(error)], None
        summary = "" if lesson is None or lines else f"{name}: no mistake found ({len(lesson.questions)} questions)"
        sys.stdout.write("\n".join([*lines, summary]).strip() + "\n")
        wrong += len(lines)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
