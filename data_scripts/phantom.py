"""Phantom: made-up patients, written here, checked and prepared like a real data set. Nothing is downloaded.

    python data_scripts/phantom.py --patients 20 --data stores/phantom-files --store stores/phantom
    python data_scripts/phantom.py --kind ct --data stores/phantom-ct-files --store stores/phantom-ct
"""

from shared import add_data, agree, finish, in_one_line, parser, usual_spacing

from kaf.data.cases import get_layout
from kaf.data.phantom import write_phantom

DATASETS = {"mr": "phantom", "ct": "phantom-ct"}
TERMS = """
Phantom: cine MR stacks in the layout of ACDC, or chest CT in the layout of CHD-68, drawn by this library
  size     about 1 MB (mr) or 3 MB (ct) for each patient
  licence  none: no real patient is behind it
"""


@in_one_line
def main() -> None:
    usual = ", ".join(f"{usual_spacing(get_layout(name).spacing_mm)} for {kind}" for kind, name in DATASETS.items())
    options = parser(__doc__, "stores/phantom", None, usual)
    add_data(options, "stores/phantom-files")
    options.add_argument("--kind", choices=sorted(DATASETS), default="mr")
    options.add_argument("--patients", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    agree(TERMS, accepted=True)
    dataset = DATASETS[arguments.kind]
    if arguments.spacing is None:
        arguments.spacing = get_layout(dataset).spacing_mm
    root = write_phantom(arguments.data, arguments.patients, arguments.seed, arguments.kind)
    finish(dataset, root, arguments)


if __name__ == "__main__":
    main()
