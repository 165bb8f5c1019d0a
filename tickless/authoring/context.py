"""What a running task knows of itself, and what it has to say beside its return value: one per attempt."""

from __future__ import annotations

from tickless.model.order import Order


class TaskInstance:
    """The `ti` of a running task. What it is told here leaves with the outcome of the attempt, and not before."""

    __slots__ = ("follow", "order", "skip_below")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.follow: tuple[str, ...] | None = None
        """Of the tasks directly below, those that shall run; None: all, as their trigger rules say."""
        self.skip_below = False
        """Skip everything below, whatever the trigger rules say."""
