"""Workarounds for oneDNN bugs: strided convolutions over one or two frames read uninitialised memory.

With torch 2.14 in bf16 on a CPU with AMX, kernels wider than one frame and a stride in time above 1 give NaN or noise,
forward or backward; inputs of three frames and more are right. Crops and windows of up to 16 frames lead to such inputs
in a ResNetish, up to 32 in many networks of timm.
"""

from torch import Tensor, nn

LEAST = 3  # frames


class WideEnough(nn.Conv2d):
    """Pads the input with zeros to LEAST frames and returns as many frames as a Conv2d: the same numbers, because its
    own padding is zeros too."""

    def forward(self, x: Tensor) -> Tensor:
        n_frames = x.shape[3]
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        n_out = (n_frames + 2 * int(self.padding[1]) - reach) // self.stride[1] + 1
        if n_frames >= LEAST or n_out < 1:  # n_out < 1: the usual error
            return super().forward(x)
        return super().forward(nn.functional.pad(x, (0, LEAST - n_frames)))[..., :n_out]


def widen_narrow_inputs(network: nn.Module) -> None:
    """Turn its strided convolutions into WideEnough with the same weights. Other subclasses of Conv2d and other padding
    stay unchanged."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
            continue
        if module.stride[1] > 1 and module.kernel_size[1] > 1:
            module.__class__ = WideEnough


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution that applies the stride before the product: the same numbers.

    For fewer than 16 channels, where oneDNN's backward pass crashes (torch 2.14 on a CPU with AVX-512, channels_last).
    For more channels oneDNN works and is faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return nn.functional.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
