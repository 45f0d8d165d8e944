"""One job of a grid, by hand or from the Snakefile: ``python -m workflow.job WHAT GRID KEY --notebook OUT.ipynb ...``.

WHAT is ``store`` (prepare the data), ``pretrain``, ``few_shot`` or ``corrupt``; KEY is the name that
``snakemake --dry-run`` shows. All but the first execute the notebook of that name with papermill and keep it as
OUT.ipynb, a page about the run.
"""

import argparse
import os
from pathlib import Path

import papermill

from kaf.config import workspace
from kaf.data.pairs import usual_workers
from kaf.loop import chosen_device
from kaf.records import FOLDER, check_name
from kaf.study import open_study
from workflow.gpus import own_gpu
from workflow.grids import FILE, expand, find, get_grid, with_sources
from workflow.plan import recorded_keys

HERE = Path(__file__).parent
KEYS = {"store": "store_key", "pretrain": "pretraining_key", "few_shot": "key", "corrupt": "key"}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser()
    try:
        work(parser, parser.parse_args(arguments))
    except KeyboardInterrupt as stop:
        parser.exit(130, f"{str(stop) or 'stopped; the same command again goes on from what was saved'}\n")


def work(parser: argparse.ArgumentParser, a: argparse.Namespace) -> None:
    """What the command asks for; what is wrong with it ``parser`` says."""
    for name in ("data_root", "output", "records"):  # the notebook runs in the folder of its page
        if value := getattr(a, name):
            setattr(a, name, str(Path(value).expanduser().resolve()))
    try:
        grid = get_grid(a.grid, a.file)
        job = find(with_sources(expand(grid)), a.key, KEYS[a.what])
        if a.what == "store":
            open_study(job.experiment, a.data_root, a.output)
            return
        check_name(a.grid, a.records)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    notebook = Path(a.notebook)
    notebook.parent.mkdir(parents=True, exist_ok=True)
    device = chosen_device(a.device)
    given = job.parameters() | {"data_root": a.data_root, "output": a.output, "device": a.device,
                                "workers": usual_workers(device) if a.workers is None else a.workers}
    levels = grid.get("levels", {})
    if a.what == "corrupt":
        given |= {"levels": levels}
    # The record of a grid has one kind of rows. A run stands in one record: what self-training goes on from may be in
    # that of another grid, and is trained again where only its folder is gone.
    if a.what == "corrupt" or (a.what == "few_shot" and not levels and job.key not in recorded_keys(a.records)):
        given |= {"record": a.grid, "records_folder": a.records}
    # The kernel imports what this process did, also where another checkout is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    with own_gpu(device, Path(a.output or workspace()) / "gpus"):
        papermill.execute_notebook(HERE / f"{a.what}.ipynb", notebook, given, progress_bar=False, cwd=notebook.parent)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m workflow.job", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=KEYS)
    parser.add_argument("grid")
    parser.add_argument("key")
    parser.add_argument("--notebook", default="job.ipynb", help="where the executed notebook goes")
    parser.add_argument("--file", default=str(FILE), help="file of the grids")
    parser.add_argument("--data-root", default="", help="folder of the data set as downloaded; a phantom needs none")
    parser.add_argument("--output", default="", help="folder for stores and runs")
    parser.add_argument("--records", default=str(FOLDER), help="folder of the records")
    parser.add_argument("--device", default="auto", help="auto (cuda, else cpu), cpu, cuda or mps")
    parser.add_argument("--workers", type=int, help="processes that read ahead, which change nothing in the result; by "
                        "default none on a processor, and up to 8 for a GPU")
    return parser


if __name__ == "__main__":
    main()
