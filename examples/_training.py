"""The training loop that the examples share: shuffled batches, AdamW, gradients clipped by their norm."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def fit(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    rows: int,
    *,
    epochs: int,
    lr: float = 3e-3,
    batch_size: int = 64,
) -> list[float]:
    """Minimise `loss(chosen)`, chosen being the numbers of a batch's rows; return its mean in each epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    means = []
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for chosen in torch.randperm(rows).split(batch_size):
            optimizer.zero_grad()
            value = loss(chosen)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += value.item() * len(chosen)
        means.append(total / rows)
        print(f"  epoch {epoch + 1}: loss {means[-1]:.3f}")
    model.eval()
    return means
