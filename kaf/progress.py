"""Progress bars that can be switched off everywhere at once."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress_bar(items: Iterable | None = None, quiet: bool = False, **options: Any) -> tqdm:
    """``tqdm.auto.tqdm``, silent with ``quiet`` or where ``TQDM_DISABLE`` is set.

    Asked here, because the variant of tqdm for notebooks overlooks the variable.
    """
    quiet = quiet or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(items, disable=quiet, **options)
