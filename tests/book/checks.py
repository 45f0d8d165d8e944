"""What a committed notebook must fulfil: each check takes a notebook and returns what is wrong with it.

``test_notebooks.py`` asks them of every notebook, ``test_guards.py`` of broken copies.
"""

import ast
import json
import re
from itertools import pairwise

from nbval.plugin import get_sanitize_patterns

from kaf import canvas
from kaf.expected import OUTDATED
from kaf.report import NUMBERS, _rounded
from tests.book.colours import strange_colours

FOLDERS = "home|root|tmp|usr|opt|mnt|Users|work|content"
ABSOLUTE_PATH = re.compile(rf"(?<![\w.:/<])/({FOLDERS})/[\w.-]+|\b[A-Z]:\\\\+Users")
SMALLEST_PT = 8  # of letters in a figure as wide as a page
STATE = "application/vnd.jupyter.widget-state+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
COMMAND = re.compile(r"\s*[%!]")  # a line that only IPython understands


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell):
    return cell.metadata.get("tags", [])


def python(cell):
    """The syntax tree of a cell, without the lines that only IPython understands."""
    return ast.parse("\n".join(line for line in cell.source.split("\n") if not COMMAND.match(line)))


def names(tree, context):
    """Names that a cell assigns to (``ast.Store``) or uses (``ast.Load``)."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {node.id for node in nodes if isinstance(node.ctx, context)}


def outputs(notebook):
    return [(cell, output) for cell in code(notebook) for output in cell.outputs]


def parameters_cell(notebook):
    """Position among the code cells of the one with the parameters; None without."""
    return next((i for i, cell in enumerate(code(notebook)) if "parameters" in tags(cell)), None)


# --- executed

def unexecuted(notebook):
    counts = [cell.execution_count for cell in code(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"cells were executed in the order {counts}"]


def errors_and_warnings(notebook):
    wrong = []
    for cell, output in outputs(notebook):
        if output.get("name") == "stderr":
            wrong.append(f"{output.text[:200]} after {cell.source[:80]}")
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            wrong.append(f"{output.ename} after {cell.source[:80]}")
    return wrong


def outdated_text(notebook):
    return [output.text for _, output in outputs(notebook) if OUTDATED in output.get("text", "")]


def absolute_paths(notebook):
    return [found[0] for found in ABSOLUTE_PATH.finditer(json.dumps(notebook))]


def traces_of_papermill(notebook):
    return [cell.source[:80] for cell in notebook.cells
            if cell.metadata.get("tags") == [] or "injected-parameters" in tags(cell)]


def semicolons(notebook):
    """nbval does not honour one at the end of a cell: the output that it suppresses comes back."""
    return [cell.source for cell in code(notebook) if cell.source.rstrip().endswith(";")]


def links_without_words(notebook):
    """The pages give them the title of their target; JupyterLab and Colab show nothing."""
    return [found for cell in notebook.cells if cell.cell_type == "markdown"
            for found in re.findall(r"\[\]\([^)]*\)", cell.source)]


def formulas_as_roles(notebook):
    """Colab and editors show a role as its source; dollars make a formula everywhere."""
    return [found for cell in notebook.cells if cell.cell_type == "markdown"
            for found in re.findall(r"\{math\}`[^`]*`", cell.source)]


def prints_in_pieces(notebook):
    return [cell.source[:80] for cell in code(notebook) for before, after in pairwise(cell.outputs)
            if before.output_type == after.output_type == "stream" and before.name == after.name]


def numbers_unlike_their_text(notebook):
    """Numbers whose printed digits are not those of the exact value in the metadata."""
    wrong = []
    for _, output in outputs(notebook):
        lines = {" ".join(line.split()) for line in output.get("data", {}).get("text/plain", "").split("\n")}
        for name, value in output.get("metadata", {}).get(NUMBERS, {}).items():
            if f"{name.replace('_', ' ')} {_rounded(value)}" not in lines:
                wrong.append(f"{name} is {value}, the text says something else")
    return wrong


# --- pictures

def pictures_without_words(notebook):
    wrong = []
    for cell in code(notebook):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            about = cell.metadata.get("mystnb", {})
            alt, caption = about.get("image", {}).get("alt", ""), about.get("figure", {}).get("caption", "")
            if len(alt) <= 20 or len(caption) <= 20:
                wrong.append(f"no mystnb.image.alt or mystnb.figure.caption at {cell.source[:80]!r}")
    return wrong


def pictures_of_another_width(notebook):
    """Figures wider than a page, whose letters would shrink with them."""
    widest = canvas.WIDTH * canvas.DPI
    found = (re.match(r"<Figure size (\d+)", output.get("data", {}).get("text/plain", ""))
             for _, output in outputs(notebook))
    return [f"{size[0]}: wider than {widest:.0f} pixels" for size in found if size and int(size[1]) > widest]


def small_letters(notebook):
    wrong = []
    for cell in code(notebook):
        for node in ast.walk(python(cell)):
            if isinstance(node, ast.keyword) and node.arg == "fontsize" and isinstance(node.value, ast.Constant):
                size = node.value.value
                if not isinstance(size, int | float) or size < SMALLEST_PT:
                    wrong.append(f"fontsize={size!r} at {cell.source[:60]!r}")
    return wrong


def colours_hard_to_tell_apart(notebook):
    return [colour for cell in code(notebook) for colour in strange_colours(python(cell))]


def widgets_without_state(notebook):
    """Widgets that a page could not show; each must have a stored picture, and that a text."""
    stored = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    views = [output.data[WIDGET]["model_id"] for _, output in outputs(notebook) if WIDGET in output.get("data", {})]
    images = [image for part in stored.values() for image in re.findall("<img [^>]*>", str(part.state.get("value")))]
    faults = [f"no state of the widget {model}" for model in views if model not in stored]
    if len(images) < len(views):
        faults.append(f"{len(views)} widgets with {len(images)} pictures")
    silent = [image for image in images if not re.search(r'alt="[^"]{20,}"', image)]
    return faults + ([f"{len(silent)} pictures without words"] if silent else [])


# --- parameters

def parameters_hidden_from_papermill(notebook):
    """Its inspection does not see annotated defaults, and reads a default with "=" in it wrongly."""
    at = parameters_cell(notebook)
    wrong = []
    for statement in python(code(notebook)[at]).body if at is not None else []:
        plain = isinstance(statement, ast.Assign) and len(statement.targets) == 1
        if not plain or "=" in ast.unparse(statement.value):
            wrong.append(ast.unparse(statement))
    return wrong


def parameters_never_read(notebook):
    at = parameters_cell(notebook)
    if at is None:
        return []
    cells = code(notebook)
    if sum("parameters" in tags(cell) for cell in cells) > 1:
        return ["papermill uses one parameters cell only"]
    later = set().union(*(names(python(cell), ast.Load) for cell in cells[at + 1:]))
    return sorted(names(python(cells[at]), ast.Store) - later) or ([] if python(cells[at]).body else ["no parameter"])


# --- the rules of nbval

def rules_not_understood(text):
    """Rules of a sanitize file that nbval would pass over in silence."""
    rules = get_sanitize_patterns(text)
    starts = [line for line in text.split("\n") if line.startswith(("regex:", "replace:"))]
    faults = [] if len(starts) == 2 * len(rules) else [f"{len(starts)} lines of rules, {len(rules)} rules are read"]
    for regex, replacement in rules:
        try:
            re.compile(regex)
        except re.error as error:
            faults.append(f"{regex}: {error}")
        if not replacement.strip():
            faults.append(f"{regex} is replaced by nothing")
    return faults


ALL = (unexecuted, errors_and_warnings, outdated_text, absolute_paths, traces_of_papermill, semicolons,
       links_without_words, formulas_as_roles, prints_in_pieces, numbers_unlike_their_text, pictures_without_words,
       pictures_of_another_width, small_letters, colours_hard_to_tell_apart, widgets_without_state,
       parameters_hidden_from_papermill, parameters_never_read)
