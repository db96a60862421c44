"""Lessons: Markdown files that ask first, executed and shown as notebook, page, or in the terminal.

`lesson` is what a file holds, `parsing` reads it, `session` executes it, `questions` judges answers. The faces are
`notebooks`, `site` and, outside this room, the command line and the explorer. `pages/` are the lessons that come with
the package; docs/how-to/write-a-lesson.md describes the format.
"""

from convscope.lessons.catalog import LESSONS as LESSONS
from convscope.lessons.catalog import find_lesson as find_lesson
from convscope.lessons.notebook_lesson import NotebookLesson as NotebookLesson
from convscope.lessons.notebook_lesson import lesson as lesson
from convscope.lessons.notebooks import write_notebook as write_notebook
from convscope.lessons.parsing import parse as parse
from convscope.lessons.session import LessonSession as LessonSession
