"""What a machine offers and which scale fits it: the first line that a chapter prints."""

import torch

import kaf
from kaf.usage import count_cores

# GPU memory that scale full takes on the phantom and on ACDC, estimated from what the benchmarks measured for a batch
# of two; CHD at 512 pixels takes several times as much.
FULL_GB = 12


def describe_machine() -> str:
    """Versions, the GPU or the processor cores, and the largest scale that fits, in one line.

    The GPU of a Mac does not count: only the device ``mps`` takes it.
    """
    versions = f"kaf {kaf.__version__}, torch {torch.__version__}"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        gigabytes = gpu.total_memory / 1e9
        scale = "full" if gigabytes >= FULL_GB else "laptop"
        return f"{versions}; GPU: {gpu.name}, {gigabytes:.0f} GB; scale {scale!r} fits"
    gpu = "Apple, untested" if torch.backends.mps.is_available() else "none"
    return f"{versions}; GPU: {gpu}, {count_cores()} processor cores; scale 'smoke' fits"
