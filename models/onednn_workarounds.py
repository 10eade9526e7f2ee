"""Convolutions that stride over an input of one or two frames, which oneDNN computes from memory that nobody wrote.

So it is with torch 2.14 in bf16 on a CPU with AMX: a kernel wider than one frame and a stride in time above 1 give NaN
or noise, forward or backward, while inputs of three frames and more are right. Crops and windows of 16 frames or fewer
come to that in a ResNetish, of 32 in many a network of timm.
"""

from torch import Tensor, nn

LEAST = 3  # frames


class WideEnough(nn.Conv2d):
    """Sees LEAST frames or more, what lacks zeros behind the others, and gives the frames that a Conv2d would: the same
    numbers, since zeros are its padding."""

    def forward(self, x: Tensor) -> Tensor:
        n_frames = x.shape[3]
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        given = (n_frames + 2 * int(self.padding[1]) - reach) // self.stride[1] + 1
        if n_frames >= LEAST or given < 1:  # too few for the kernel: that is its own error
            return super().forward(x)
        return super().forward(nn.functional.pad(x, (0, LEAST - n_frames)))[..., :given]


def widen_narrow_inputs(network: nn.Module) -> None:
    """Make its striding convolutions WideEnough, their weights as they are. What is a Conv2d of another kind, and pads
    in its own way, is left alone."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
            continue
        if module.stride[1] > 1 and module.kernel_size[1] > 1:
            module.__class__ = WideEnough


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution that takes the cells that its stride leaves before it computes, not while: the same numbers.

    For fewer than 16 channels, whose backward pass kills the process in oneDNN's own way (torch 2.14 on a CPU with
    AVX-512, channels_last). For more that way is right, and faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return nn.functional.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
