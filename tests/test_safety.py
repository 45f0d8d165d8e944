"""What no code here may do: unpickle, run what it is given, call a shell, write a file in place, use the network."""

import ast
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("kaf", "benchmarks", "book", "data_scripts")
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNNING = {"eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
           "pty.spawn", "yaml.load", "yaml.unsafe_load", "torch.hub.load"}
HARMLESS = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False"),
            "numpy.load": ("allow_pickle", "False")}
SHELLS = ("!", "%%bash", "%%sh", "%%script", "%sx", "%system")  # in a notebook
MAY_TRUST = {  # what these tests open or run they have made themselves; kaf.usage counts cores and opens nothing
    "kaf/usage.py": {"import joblib"},
    "tests/data/test_store.py": {"import pickle"}, "tests/test_guards.py": {"eval"},
    "tests/exercises/test_solutions.py": {"exec", "compile"},
}

WRITERS = {"write_text", "write_bytes", "to_csv", "to_json", "savefig"}  # methods that take a path
SAVERS = {"np.save", "np.savez", "np.savez_compressed", "torch.save", "nib.save", "nbformat.write", "os.replace",
          "os.rename", "shutil.move", "shutil.copy", "shutil.copyfile"}
SAFE = {"replacing", "building", "whole"}  # with-blocks whose files appear at their end
MAY_WRITE = {  # file: functions that write to a path that such a block has given, to memory, or in parts that are kept
    "kaf/data/arrays.py": {"write_array"}, "kaf/data/phantom.py": {"_save"}, "kaf/data/volumes.py": {"write_labels"},
    "kaf/data/sunnybrook.py": {"convert", "_save"}, "kaf/widgets.py": {"to_png"}, "kaf/usage.py": {"reset_peak_memory"},
    "benchmarks/loader.py": {"write_store"}, "book/setup_cell.py": {"setup"},
    "data_scripts/fetch.py": {"fetch", "_save_tag"},
}


def sources(*folders):
    """Path and code of every Python file and notebook; line magics of IPython are kept as strings."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            cells = json.loads(path.read_text())["cells"]
            for cell in (cell for cell in cells if cell["cell_type"] == "code"):
                yield path.relative_to(ROOT).as_posix(), "".join(cell["source"])


def name_of(node):
    """``a.b`` of a call ``a.b(...)``, with aliases as they stand there."""
    return ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""


def dangers(code):
    """What in ``code`` could run something that came from outside."""
    if any(line.lstrip().startswith(SHELLS) for line in code.splitlines()):
        return {"a shell from a notebook"}
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found |= {f"import {name}" for name in names if name.split(".")[0] in UNPICKLING}
        if not isinstance(node, ast.Call):
            continue
        name, options = name_of(node), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in RUNNING or name.split(".")[-1] in ("read_pickle", "to_pickle"):
            found.add(name)
        if name in HARMLESS and HARMLESS[name] not in options.items():
            found.add(f"{name} without {'='.join(HARMLESS[name])}")
        if options.get("shell", "False") != "False" or options.get("allow_pickle", "False") != "False":
            found.add(f"{name} with shell or pickle")
    return found


@pytest.mark.parametrize("folder", [*OURS, "tests"])
def test_nothing_from_outside_is_unpickled_or_run(folder):
    codes = list(sources(folder))
    assert len(codes) >= 5
    found = {path: dangers(code) - MAY_TRUST.get(path, set()) for path, code in codes}
    assert not {path: what for path, what in found.items() if what}


@pytest.mark.parametrize("code", [
    "torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=x)", "np.load(f)",
    "numpy.load(f, allow_pickle=True)", "import pickle", "from joblib import load", "pd.read_pickle(f)",
    "t.to_pickle(f)", "os.system(x)", "subprocess.run(x, shell=True)", "Popen(x, shell=flag)", "eval(x)", "exec(x)",
    "!rm -r $x", "%%bash\nls", "yaml.load(f)", "np.lib.format.read_array(f, allow_pickle=True)",
    "def f():\n    import dill",
])
def test_the_search_finds(code):
    assert dangers(code)


def in_place(path, code):
    """Calls in ``code`` that write a file under its own name, and the functions where they stand."""
    found = []

    def visit(node, function, safe):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.With):
            safe = safe or any(isinstance(i.context_expr, ast.Call) and name_of(i.context_expr).split(".")[-1] in SAFE
                               for i in node.items)
        if isinstance(node, ast.Call) and not safe and writes(node):
            found.append((function, ast.unparse(node)))
        for child in ast.iter_child_nodes(node):
            visit(child, function, safe)

    visit(ast.parse(code), "", False)
    return [call for function, call in found if function not in MAY_WRITE.get(path, set())]


def writes(node):
    """Whether a call writes to a file that it names."""
    name = name_of(node)
    last = name.split(".")[-1]
    if last != "open":
        return name in SAVERS or last in WRITERS
    modes = [k.value for k in node.keywords if k.arg == "mode"] or node.args[name == "open" :][:1]
    return any(isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax+") for m in modes)


@pytest.mark.parametrize("folder", OURS)
def test_files_are_written_whole_or_not_at_all(folder):
    found = {path: in_place(path, code) for path, code in sources(folder)
             if path.endswith(".py") and path != "kaf/files.py"}
    assert not {path: what for path, what in found.items() if what}


@pytest.mark.parametrize(("code", "found"), [
    ("p.write_text(x)", True), ("open(p, 'w')", True), ("p.open('ab')", True), ("open(p, mode='x')", True),
    ("t.to_csv(p)", True), ("np.save(p, x)", True), ("with replacing(p) as q:\n    q.write_text(x)", False),
    ("with building(p) as q:\n    np.save(q / 'a', x)", False), ("open(p)", False), ("p.open('rb')", False),
    ("with other(p) as q:\n    q.write_text(x)", True), ("Store.open(path)", False),
])
def test_the_search_for_writing_finds(code, found):
    assert bool(in_place("", code)) is found


def test_exceptions_are_still_needed():
    for path, names in MAY_WRITE.items():
        bare = {n.name for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.FunctionDef)
                if in_place("", ast.unparse(n))}
        assert names <= bare, path
    for path, names in MAY_TRUST.items():
        assert names <= dangers((ROOT / path).read_text()), path


# --- no network

NOWHERE = ("192.0.2.1", 80)  # an address for documentation, RFC 5737
WATCH = """
import importlib, pkgutil, sys
seen = []
sys.addaudithook(lambda event, details: event.startswith("socket.") and seen.append((event, details)))
import kaf
for module in pkgutil.walk_packages(kaf.__path__, "kaf."):
    importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("kaf.")]))
print(sorted({event for event, _ in seen}), [details[1][0] for event, details in seen if event == "socket.bind"])
"""


def test_importing_the_library_asks_nobody():
    done = subprocess.run([sys.executable, "-c", WATCH], cwd=ROOT, capture_output=True, text=True, check=True)
    modules, events = done.stdout.splitlines()
    assert int(modules) > 40
    # A library below looks whether this machine knows IPv6, at an address of its own.
    assert events in ("[] []", "['socket.__new__', 'socket.bind'] ['::1']")


def test_tests_reach_no_other_machine():
    with pytest.raises(RuntimeError, match="no network in tests: socket.connect to '192.0.2.1'"):
        socket.socket().connect(NOWHERE)
    with pytest.raises(RuntimeError, match=r"socket.getaddrinfo to 'example\.org'"):
        socket.getaddrinfo("example.org", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some, pytest.raises(RuntimeError, match="sendto"):
        some.sendto(b"", NOWHERE)


def test_processes_of_tests_reach_no_other_machine():
    code = f"import socket; socket.create_connection({NOWHERE}, timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: no network in tests" in done.stderr


def test_this_machine_may_talk_to_itself():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        assert server.accept()
