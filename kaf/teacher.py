"""The running mean of a network's weights, kept while it trains (chapter 9).

Tarvainen and Valpola (2017) call it the mean teacher: alone it smooths the last steps of a training
(``FinetuneConfig.ema``), and in :mod:`kaf.selftrain` its answers teach the network.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from kaf.keypoints import Keypoints


class MeanTeacher(nn.Module):
    """A student, and a teacher that is the running mean of the student; only the student trains."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student, self.teacher = student, deepcopy(student).requires_grad_(False)
        self.idle = getattr(student, "idle", False)  # whether parts of it have no gradient, see kaf.loop.Averaging

    def train(self, mode: bool = True) -> "MeanTeacher":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, image: Tensor, keypoints: Keypoints, teach: bool = False) -> Tensor:
        """Logits of the student; with ``teach`` those of the teacher, without gradients."""
        if not teach:
            return self.student(image, keypoints)
        with torch.no_grad():
            return self.teacher(image, keypoints)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher towards the student, running statistics included."""
        for mean, value in zip(self.teacher.state_dict().values(), self.student.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
