"""Progress bars that can be switched off everywhere at once."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from kaf.processes import rank


def progress_bar(items: Iterable | None = None, quiet: bool = False, **options: Any) -> tqdm:
    """``tqdm.auto.tqdm``, silent with ``quiet``, where ``TQDM_DISABLE`` is set, and in all processes but the first.

    Asked here, because the variant of tqdm for notebooks overlooks the variable.
    """
    quiet = quiet or rank() > 0 or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(items, disable=quiet, **options)
