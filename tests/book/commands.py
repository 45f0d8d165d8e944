"""The commands that README, front page, appendix and chapters print, and what each of them needs to work."""

import re
import shlex
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "book").rglob("*.md"))]
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
SETTING = re.compile(r"[A-Z_]+=\S*")
PROGRAMS = ("make", "papermill", "python", "pip", "conda", "source", "torchrun", "srun", "jupyter")


def commands():
    """(where it stands, command as a list of words), each once; comments and settings in front are left out."""
    found = {}
    for path in [*TEXTS, *sorted((ROOT / "book").rglob("*.ipynb"))]:
        for command in of_text(words_of(path)):
            found.setdefault(tuple(command), path.relative_to(ROOT).as_posix())
    return [(where, list(command)) for command, where in found.items()]


def words_of(path):
    if path.suffix == ".md":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def of_text(text):
    """Commands in fences marked bash, all lines of them, and in the text, where they begin with a known program."""
    lines = [line for block in FENCE.findall(text) for line in block.split("\n")]
    prose = INLINE.findall(FENCE.sub("", text))
    inline = [words for words in prose if words.split()[0] in PROGRAMS and len(words.split()) > 1]
    for line in lines + inline:
        words = shlex.split(line, comments=True)
        while words and SETTING.fullmatch(words[0]):
            words = words[1:]
        if words:
            yield words
