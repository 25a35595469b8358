"""Every task, by name."""

from __future__ import annotations

from trials import adding, copying, images, music, order, reber, reversal, tail, text
from trials.arms import Task

TASKS: dict[str, Task] = {
    "adding": adding.TASK,
    "copy": copying.TASK,
    "order": order.TASK,
    **reber.TASKS,
    "reversal": reversal.TASK,
    **images.TASKS,
    "digits-tail": tail.TASK,
    "chorales": music.TASK,
    **text.TASKS,
}
