"""An accelerator played on the CPU: finds where a program would have to wait for the device."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.unique_dim}
READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}


class Waited(AssertionError):
    """The program would wait for the device here."""


class DeviceWatch(TorchDispatchMode):
    """Raises :class:`Waited` where a value is read that was computed from one of the tensors ``on_device``.

    What is drawn on the CPU and never mixed with those may be read, as augmentation does. Copies from the CPU are
    not seen: on a real GPU ``torch.cuda.set_sync_debug_mode`` finds them.
    """

    def __init__(self, *on_device):
        super().__init__()
        self.marked = {}  # keeps them all: the place of one that is gone could be given to another
        self.functions = _Reads(self)
        self.mark(on_device)

    def mark(self, values) -> None:
        storages = [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, torch.Tensor)]
        self.marked.update({storage._cdata: storage for storage in storages})

    def has(self, values) -> bool:
        return any(isinstance(t, torch.Tensor) and t.untyped_storage()._cdata in self.marked
                   for t in tree_leaves(values))

    def __enter__(self):
        self.functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.functions.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = self.has((args, kwargs))
        packet = function.overloadpacket
        if given and packet in WAITS:
            raise Waited(str(function))
        if packet in (aten.index, aten.index_put, aten.index_put_) and any(
                i is not None and i.dtype in (torch.bool, torch.uint8) and self.has(i) for i in args[1]):
            raise Waited(f"{function} with a mask")
        result = function(*args, **kwargs)
        if given:
            self.mark(result)
        return result


class _Reads(TorchFunctionMode):
    """What reads values without an operator of its own."""

    def __init__(self, watch: DeviceWatch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READS and self.watch.has(args):
            raise Waited(function.__name__)
        return function(*args, **(kwargs or {}))
