"""BiT-ResNet v2 as one writes it in PyTorch: the other yardstick of bench/.

Parameters are float32 and meet activations in their precision.
"""

import torch
from torch import nn
import torch.nn.functional as F


class StdConv(nn.Conv2d):
  """Its kernel, OIHW, is standardised in every call."""

  def forward(self, x):
    var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True,
                               unbiased=False)
    kernel = (self.weight - mean) / torch.sqrt(var + 1e-10)
    return F.conv2d(x, kernel.to(x.dtype), None, self.stride, self.padding)


class GroupNorm(nn.GroupNorm):

  def forward(self, x):
    return F.group_norm(x, self.num_groups, self.weight.to(x.dtype),
                        self.bias.to(x.dtype))


def conv(c, out, size=1, stride=1):
  return StdConv(c, out, size, stride, size // 2, bias=False)


class Unit(nn.Module):
  """Bottleneck; its projection reads the normalised input."""

  def __init__(self, c, mid, stride):
    super().__init__()
    self.norms = nn.ModuleList(GroupNorm(32, n) for n in (c, mid, mid))
    self.convs = nn.ModuleList(
        [conv(c, mid), conv(mid, mid, 3, stride), conv(mid, 4 * mid)])
    self.proj = conv(c, 4 * mid, 1, stride) if c != 4 * mid else None

  def forward(self, x):
    y = F.relu(self.norms[0](x))
    x = x if self.proj is None else self.proj(y)
    y = self.convs[0](y)
    for norm, layer in zip(self.norms[1:], self.convs[1:]):
      y = layer(F.relu(norm(y)))
    return x + y


class Model(nn.Module):
  """Images [b, 3, h, w] -> logits [b, num_classes]."""

  def __init__(self, num_classes, units=(3, 4, 6, 3), width=1):
    super().__init__()
    c, mid = 64 * width, 64 * width
    self.root = conv(3, c, 7, 2)
    self.units = nn.Sequential()
    for i, count in enumerate(units):
      for j in range(count):
        self.units.append(Unit(c, mid * 2**i, 2 if i and not j else 1))
        c = 4 * mid * 2**i
    self.norm = GroupNorm(32, c)
    self.head = nn.Linear(c, num_classes)

  def forward(self, images):
    x = F.max_pool2d(F.pad(self.root(images), (1, 1, 1, 1)), 3, 2)
    x = F.relu(self.norm(self.units(x))).mean((2, 3))
    return self.head(x.float())
