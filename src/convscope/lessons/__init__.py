"""Lessons: Markdown files that ask first, executed and shown as notebook, page, or in the terminal.

`lesson` is what a file holds, `parsing` reads it, `session` executes it, `questions` judges answers. The faces are
`notebooks`, `site` and, outside this room, the command line and the explorer. `pages/` are the lessons that come with
the package; docs/how-to/write-a-lesson.md describes the format.
"""

from convscope.lessons.lesson import Block as Block
from convscope.lessons.lesson import Code as Code
from convscope.lessons.lesson import Lesson as Lesson
from convscope.lessons.lesson import Question as Question
from convscope.lessons.lesson import Stop as Stop
from convscope.lessons.lesson import Text as Text
from convscope.lessons.notebooks import NotebookLesson as NotebookLesson
from convscope.lessons.notebooks import write_notebook as write_notebook
from convscope.lessons.parsing import LESSONS as LESSONS
from convscope.lessons.parsing import find_lesson as find_lesson
from convscope.lessons.parsing import is_file_name as is_file_name
from convscope.lessons.parsing import is_short as is_short
from convscope.lessons.parsing import parse as parse
from convscope.lessons.questions import AnswerError as AnswerError
from convscope.lessons.questions import Asked as Asked
from convscope.lessons.questions import Verdict as Verdict
from convscope.lessons.session import LessonSession as LessonSession
from convscope.lessons.session import Shown as Shown
from convscope.lessons.session import ShownCode as ShownCode
from convscope.lessons.session import ShownStop as ShownStop
from convscope.lessons.session import ShownText as ShownText
from convscope.lessons.session import check_stop as check_stop
from convscope.lessons.session import in_temporary_folder as in_temporary_folder
from convscope.lessons.session import model_of as model_of
from convscope.lessons.session import with_runs_in as with_runs_in
from convscope.lessons.values import Output as Output
