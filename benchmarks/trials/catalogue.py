"""Every task, by name."""

from __future__ import annotations

from trials import adding, copying, curves, frames, images, music, order, reber, reversal, spread, tail, text, unaligned
from trials.arms import Task

TASKS: dict[str, Task] = {
    "adding": adding.TASK,
    "copy": copying.TASK,
    "order": order.TASK,
    **reber.TASKS,
    "reversal": reversal.TASK,
    **images.TASKS,
    "digits-tail": tail.TASK,
    "curves": curves.TASK,
    "frames": frames.TASK,
    "unaligned": unaligned.TASK,
    "spread": spread.TASK,
    "chorales": music.TASK,
    **text.TASKS,
}
