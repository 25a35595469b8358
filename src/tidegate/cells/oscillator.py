"""Cells that are oscillators, or differential equations on several time scales, taken a step at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("cornn")
class CoRNN(Cell):
    """Coupled oscillatory network: h is where the oscillators are, v how fast they move.

        v' = v + dt (tanh(W x + U h + U_v v + b) − γ h − ε v)
        h' = h + dt v'

    U is `weight_hh`, U_v `weight_v` [H, H]. `dt` is the step's length, `gamma` γ the frequency and `epsilon` ε the
    damping; unless given they are those of the paper's sequential MNIST.

    Source: Rusch & Mishra 2020 (2010.00951), equation 3, whose y, z, V are h, v, W here, with the damping taken
    at the old v (n̄ = n−1), as the authors' code does. Deviation: two bias vectors.
    """

    gates = ("n",)
    states = ("h", "v")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon
        self.weight_v = self.own("weight_v", hidden_size, hidden_size)

    def step(self, x: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        (n,) = self.gate(x, h)
        force = self.candidate(tanh(n + self.linear(v, self.weight_v)))
        v = v + self.dt * (force - self.gamma * h - self.epsilon * v)
        return h + self.dt * v, v


@CELLS.add("unicornn")
class UnICORNN(Cell):
    """Undamped independent controlled oscillators: each unit oscillates by itself, in its own time.

        step = dt σ(k)
        v' = v − step⊙(tanh(W x + u⊙h + b) + α h)
        h' = h + step⊙v'

    u is `weight_u` [H], first from U(0, 1), and k `time_scale` [H], first from U(−0.1, 0.1). `dt` is the longest
    step and `alpha` α the restoring force.

    Source: Rusch & Mishra 2021 (2103.05487), its discrete form, whose y, z, w, c, V are h, v, u, k, W here, v being
    updated first as in the authors' code. Deviations: `dt` 0.1 and `alpha` 1 unless given, where the paper searches
    them for each task; no residual connection between layers (a layer's `connection="residual"`).
    """

    gates = ("n",)
    recurrent_gates = ()
    states = ("h", "v")

    def __init__(
        self, input_size: int, hidden_size: int, *, dt: float = 0.1, alpha: float = 1.0, **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.dt, self.alpha = dt, alpha
        self.weight_u = self.own("weight_u", hidden_size, fill=partial(nn.init.uniform_, a=0.0, b=1.0))
        self.time_scale = self.own("time_scale", hidden_size, fill=partial(nn.init.uniform_, a=-0.1, b=0.1))

    def step(self, x: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        step = self.dt * sigmoid(self.time_scale)
        v = v - step * (self.candidate(tanh(x + self.weight_u * h)) + self.alpha * h)
        return h + step * v, v


@CELLS.add("lem")
class LEM(Cell):
    """Long expressive memory: two states, each with time steps of its own that the input sets.

        slow, fast = dt σ(W_• x + U_• h + b_•)
        z' = (1−slow)⊙z + slow⊙tanh(W_z x + U_z h + b_z)
        h' = (1−fast)⊙h + fast⊙tanh(W_h x + U_h z' + b_h)

    Source: Rusch, Mishra, Erichson & Mahoney 2021 (2110.04744), equation 3; slow, fast and h are its Δt, Δt̄ and y.
    Deviation: two bias vectors.
    """

    gates = ("slow", "fast", "z", "h")
    states = ("h", "z")

    def __init__(self, input_size: int, hidden_size: int, *, dt: float = 1.0, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.dt = dt

    def step(self, x: Tensor, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x_slow, x_fast, x_z, x_h = self.split(x)
        slow = self.dt * sigmoid(x_slow + self.recurrent("slow", h))
        fast = self.dt * sigmoid(x_fast + self.recurrent("fast", h))
        z = (1 - slow) * z + slow * self.candidate(tanh(x_z + self.recurrent("z", h)))
        return (1 - fast) * h + fast * self.candidate(tanh(x_h + self.recurrent("h", z))), z
