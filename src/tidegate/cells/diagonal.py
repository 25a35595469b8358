"""Linear recurrent units: a diagonal that is kept just inside the unit circle."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, exp, sigmoid, tanh

from tidegate.cells.base import CELLS
from tidegate.cells.linear import Linear
from tidegate.errors import ConfigError


@CELLS.add("lru")
class LRU(Linear):
    """Linear recurrent unit: H complex numbers, each turning and decaying at its own rate.

        λ = exp(−exp(ν) + i exp(θ))
        c' = λ⊙c + exp(γ)⊙(W_re x + b_re + i (W_im x + b_im))
        h' = Re(C c') + W_d x + b_d

    The state is (h, c), c [B, 2H]: real parts, then imaginary ones. ν, θ and γ are `nu_log`, `theta_log` and
    `gamma_log` [H]; at first |λ|² is uniform between `r_min`² and `r_max`², the phase uniform below `max_phase`, and
    exp(γ) = √(1−|λ|²). C is `weight_ho` [H, 2H]: its real part, then minus its imaginary one.

    Source: Orvieto et al. 2023 (2303.06349), section 3 and appendix A. Deviations: the skip W_d is a matrix
    and not a diagonal, so that x need not be H wide; biases; W and C begin as in `torch.nn`, not as normal
    numbers; no nonlinear block behind it.
    """

    gates = ("re", "im", "d")
    states = ("h", "c")
    is_complex = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        **options: Any,
    ) -> None:
        if not 0 <= r_min < r_max <= 1 or not 0 < max_phase <= 2 * math.pi:
            raise ConfigError(
                "building LRU",
                expected="0 ≤ r_min < r_max ≤ 1 and 0 < max_phase ≤ 2π",
                got=f"r_min={r_min}, r_max={r_max}, max_phase={max_phase}",
                hint="leave them out",
            )
        super().__init__(input_size, hidden_size, **options)
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase
        self.nu_log = self.own("nu_log", hidden_size, fill=self._ring)
        self.theta_log = self.own("theta_log", hidden_size, fill=self._phase)
        self.gamma_log = self.own("gamma_log", hidden_size, fill=self._gain)
        self.weight_ho = self.own("weight_ho", hidden_size, 2 * hidden_size)

    def _ring(self, nu: Tensor) -> None:
        squared = nu.uniform_(max(self.r_min**2, 1e-6), min(self.r_max**2, 1 - 1e-6))
        squared.log_().mul_(-0.5).log_()

    def _phase(self, theta: Tensor) -> None:
        theta.uniform_(1e-6, self.max_phase).log_()

    def _gain(self, gamma: Tensor) -> None:
        gamma.copy_(torch.log1p(-exp(-2 * exp(self.nu_log))).div_(2))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size, 2 * self.hidden_size)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size, angle, gain = exp(-exp(self.nu_log)), exp(self.theta_log), exp(self.gamma_log)
        re, im, _ = self.split(x)
        a = torch.cat([size * torch.cos(angle), size * torch.sin(angle)], -1)
        return a, torch.cat([gain * self.candidate(re), gain * self.candidate(im)], -1)

    def emit(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(c, self.weight_ho) + self.split(x)[2]


@CELLS.add("rglru")
class RGLRU(Linear):
    """Real-gated linear recurrent unit: how fast a unit forgets depends on the input.

        r, i = σ(W_• x + b_•)    n = W_n x + b_n
        a = σ(Λ)^(s r)
        h' = a⊙h + √(1−a²)⊙i⊙n

    Λ is `weight_a` [H], at first such that σ(Λ)^s is uniform from 0.9 to 0.999, and `sharpness` s the paper's 8.

    Source: De et al. 2024, Griffin (2402.19427), equations 1 to 4; s is its c. Deviations: what is written is a
    projection n of x, where the paper's x has been projected and convolved before; the gates' matrices are full
    and not block-diagonal.
    """

    gates = ("r", "i", "n")

    def __init__(self, input_size: int, hidden_size: int, *, sharpness: float = 8.0, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.sharpness = sharpness
        self.weight_a = self.own("weight_a", hidden_size, fill=self._slow)

    def _slow(self, weight: Tensor) -> None:
        kept = torch.empty_like(weight).uniform_(0.9, 0.999) ** (1 / self.sharpness)
        weight.copy_(torch.logit(kept))

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r, i, n = self.split(x)
        log_a = -self.sharpness * F.softplus(-self.weight_a) * sigmoid(r)
        a = exp(log_a)
        # 1 − a², without the digits that the difference would lose where a is close to 1.
        left = -tanh(log_a) * (1 + a * a)
        return a, torch.sqrt(left) * sigmoid(i) * self.candidate(n)
