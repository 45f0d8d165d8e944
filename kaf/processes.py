"""Several processes that train one network, each with its share of every batch: what they have to exchange.

The result must not depend on how many there are. A loss that compares slices with each other needs the features
of all processes (:func:`gather`), and a normalisation over the batch needs its sums over all of them
(:func:`total`). Both pass gradients back to where the values came from. In a single process they do nothing.

Every process computes the same joint loss, and the gradients of the weights are averaged over the processes
afterwards, so they come out as in one process with the whole batch.
"""

from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> int:
    """Number of processes that train together; 1 where none have been started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0. The first one writes what is written."""
    return dist.get_rank() if world() > 1 else 0


def share(batch: int) -> slice:
    """The part of a joint batch that this process computes. Raises ``ValueError`` unless all get as much."""
    if batch % world():
        raise ValueError(f"a batch of {batch} cannot be shared evenly by {world()} processes; "
                         "change the batch or the number of devices")
    size = batch // world()
    return slice(rank() * size, (rank() + 1) * size)


def gather(values: Tensor) -> Tensor:
    """The values ``(N, ...)`` of all processes in their order: ``(processes * N, ...)``, with gradients."""
    return values if world() == 1 else _Gather.apply(values)


def total(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, with gradients."""
    return values if world() == 1 else _Total.apply(values)


def any_of(wish: bool) -> bool:
    """Whether any process wishes it; all have to ask. Exchanged on the CPU, so that no step waits for a device."""
    if world() == 1:
        return wish
    wishes = torch.tensor(int(wish))
    dist.all_reduce(wishes, dist.ReduceOp.MAX, group=_side_channel())
    return bool(wishes)


@lru_cache
def _side_channel() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.size = len(values)
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _summed(grad)[rank() * ctx.size : (rank() + 1) * ctx.size]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _summed(grad)


def _summed(values: Tensor) -> Tensor:
    result = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result


def joint_statistics(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm in ``module`` take its statistics over all processes; names of weights stay.

    :class:`torch.nn.SyncBatchNorm` does so on GPUs only. Norms of single images need nothing, and
    :class:`kaf.mixers.MaskedBatchNorm` sees to it itself.
    """
    if world() == 1:
        return module
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        if device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(module)
        joint = JointBatchNorm(module.num_features, module.eps, module.momentum).to(module.weight)
        joint.load_state_dict(module.state_dict())
        return joint.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, joint_statistics(child, device))
    return module


class JointBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of ``(B, C, ...)`` with the statistics of all processes, on any device."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        others, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *[1] * (x.dim() - 2))
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = world() * x.numel() // x.shape[1]
        mean = total(values.sum(others)) / count
        centred = values - mean.view(shape)
        var = total(centred.square().sum(others)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)
