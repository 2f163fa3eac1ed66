"""Small torch networks on raw features, and their export; knows no env and no rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spec_core.chooser import Network

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
FLOOR = 0.1  # least standard deviation: what never varied in training must not explode in use


def folded(layers: Sequence[nn.Linear], mean: Wide, std: Wide, activation: str = "tanh") -> Network:
    """The layers behind (x - mean) / std as one Network on x."""
    weights = [layer.weight.detach().double().numpy() for layer in layers]
    biases = [layer.bias.detach().double().numpy() for layer in layers]
    biases[0] = biases[0] - weights[0] @ (mean / std)
    weights[0] = weights[0] / std
    return Network(
        [w.astype(np.float32) for w in weights], [b.astype(np.float32) for b in biases], activation
    )


class Net(nn.Module):
    """tanh layers on standardised features."""

    def __init__(self, features: Array, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        wide = features.astype(np.float64)
        self.mean, self.std = wide.mean(0), np.sqrt(wide.var(0) + FLOOR**2)
        sizes = [features.shape[1], *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def standardised(self, features: Array) -> Tensor:
        """What the layers read."""
        return torch.from_numpy(((features - self.mean) / self.std).astype(np.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [N, outputs] of standardised features."""
        for i, layer in enumerate(self.layers):
            x = layer(x.tanh() if i else x)
        return x

    def predict(self, features: Array) -> Array:
        """Outputs [N, outputs] of raw features."""
        with torch.no_grad():
            return self(self.standardised(features)).numpy()

    def network(self) -> Network:
        """The same function of raw features."""
        return folded(list(self.layers), self.mean, self.std)  # type: ignore[arg-type]


Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs [n, K], their rows [n]) -> scalar


def fit(
    features: Array, loss: Loss, outputs: int, hidden: Sequence[int] = (32,), seed: int = 0,
    updates: int = 400, rate: float = 1e-2, decay: float = 0.3, start: float = 0.0,
) -> Net:  # fmt: skip
    """Train from scratch, a function of its arguments alone; `start`: the outputs at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(features, hidden, outputs)
        nn.init.constant_(net.layers[-1].bias, start)  # type: ignore[arg-type]
        x = net.standardised(features)
        optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=decay, fused=True)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
        for _ in range(updates):
            rows = torch.randint(len(x), (min(256, len(x)),))
            optimiser.zero_grad()
            loss(net(x[rows]), rows).backward()
            optimiser.step()
            falling.step()
    return net
