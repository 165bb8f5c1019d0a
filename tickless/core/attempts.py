"""Attempts: from the slots of a task instance to the end of its process, and what that end means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tickless.core.admission import Needs
from tickless.core.changes import Changes
from tickless.core.choice import XCOM_CHOICE_KEY, all_below, not_followed, why_skipped
from tickless.core.decision import AckReport, Launch, StopAttempt, Write
from tickless.core.machine import Happening, move
from tickless.core.quota import Quota
from tickless.core.record import Attempt, Instance
from tickless.core.retry import judge_end, next_try_at
from tickless.core.runs import Runs
from tickless.core.timers import RetryDue, TimeoutDue, TimerHeap
from tickless.model.id import UNMAPPED, AttemptId, Epoch, make_attempt_id
from tickless.model.order import StopOrder
from tickless.model.report import Finished, Lost, Started
from tickless.model.row import AttemptRow, XComRow
from tickless.model.state import AttemptState, EndReason, TaskState

XCOM_RETURN_KEY = "return_value"
RETURNED_NOTHING = "it returned nothing, so nothing is mapped over it"
"""Why a mapped instance that succeeded is not counted where another task is mapped over its task."""

_MARKED = {
    EndReason.MARKED_SUCCESS: Happening.MARK_SUCCESS,
    EndReason.MARKED_FAILED: Happening.MARK_FAILED,
}
"""What somebody wants to become of a task whose attempt had to be stopped first."""


class Attempts:
    """The live attempts."""

    def __init__(self, epoch: Epoch, changes: Changes, quota: Quota, runs: Runs, timers: TimerHeap) -> None:
        self.attempts: dict[AttemptId, Attempt] = {}
        self.when_failed: Callable[[Instance], None] = lambda instance: None
        """Called when a task has failed for good; set by the part that ends runs before their time."""
        self._epoch = epoch
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._timers = timers
        self._last_attempt = 0

    def launch(self, instance: Instance, needs: Needs) -> None:
        """The instance has its slots: make its attempt."""
        after = move(instance.state, Happening.ADMIT)
        assert after is not None
        self._changes.touch(instance)
        run, spec = instance.run, instance.task.spec
        self._last_attempt += 1
        attempt_id = make_attempt_id(self._epoch, self._last_attempt)
        instance.state = after
        instance.attempt_id = attempt_id
        instance.queued_at = self._changes.now
        instance.started_at = None
        key = instance.key
        suffix = "" if key.map_index == UNMAPPED else f".{key.map_index}"
        row = AttemptRow(
            attempt_id=attempt_id,
            run=key.run,
            task_id=key.task_id,
            map_index=key.map_index,
            try_number=instance.try_number,
            state=AttemptState.QUEUED,
            executor=self._quota.routing.queues[spec.queue],
            queue=spec.queue,
            pool=spec.pool,
            pool_slots=spec.pool_slots,
            queued_at=self._changes.now,
            timeout_seconds=spec.execution_timeout_seconds,
            # One folder per run: making a folder costs more than half of making the file.
            log_path=f"{run.row.dag_id}/{key.run}/{key.task_id}{suffix}.{instance.try_number}-{attempt_id}.log",
        )
        attempt = Attempt(row, instance, needs)
        self.attempts[attempt_id] = attempt
        self._changes.new_attempt(attempt)
        self._changes.effects.append(
            Launch(attempt_id=attempt_id, key=key, executor=row.executor, try_number=instance.try_number)
        )

    def on_started(self, report: Started) -> None:
        attempt = self.attempts.get(AttemptId(report.attempt_id))
        if attempt is None or attempt.state is not AttemptState.QUEUED:
            self._changes.stale += 1
            return
        self._changes.touch_attempt(attempt)
        attempt.state = AttemptState.RUNNING
        attempt.started_at = report.at
        attempt.pid = report.pid
        attempt.host = report.host
        self.arm_timeout(attempt)
        instance = attempt.instance
        if instance is not None and instance.state is TaskState.QUEUED:  # else it was cleared meanwhile
            after = move(instance.state, Happening.START)
            assert after is not None
            self._changes.touch(instance)
            instance.state = after
            instance.started_at = report.at

    def arm_timeout(self, attempt: Attempt) -> None:
        seconds = attempt.row.timeout_seconds
        if seconds is not None and attempt.started_at is not None:
            self._timers.arm(attempt.started_at + timedelta(seconds=seconds), TimeoutDue(attempt.id))

    def on_ended(self, report: Finished | Lost) -> None:
        attempt_id = AttemptId(report.attempt_id)
        attempt = self.attempts.pop(attempt_id, None)
        self._changes.effects.append(AckReport(attempt_id=attempt_id))
        if attempt is None:
            self._changes.stale += 1
            return
        self._changes.touch_attempt(attempt)
        attempt.ended_at = report.at
        if isinstance(report, Finished):
            attempt.state, attempt.reason = report.state, report.reason
            attempt.exit_code, attempt.signal, attempt.error = report.exit_code, report.signal, report.error
            attempt.started_at = attempt.started_at or report.started_at
            attempt.pid = attempt.pid or report.pid
            attempt.host = attempt.host or report.host
            if report.reason is EndReason.STOPPED and attempt.stop_requested_at is None:
                # Nobody asked for it in the database: the launcher was told to shut down with its tasks.
                attempt.state = AttemptState.LOST
        else:
            attempt.state, attempt.reason, attempt.error = AttemptState.LOST, EndReason.LOST, report.why
        for semaphore, weight in attempt.holds:
            semaphore.give_back(weight)
        self._quota.admission.freed(semaphore for semaphore, _ in attempt.holds)
        if attempt.instance is not None:
            self._end_try(attempt, attempt.instance, report if isinstance(report, Finished) else None)

    def _end_try(self, attempt: Attempt, instance: Instance, report: Finished | None) -> None:
        """What the end of its attempt means for the task instance. No report: it was lost."""
        run, spec = instance.run, instance.task.spec
        told_at = len(self._changes.effects)  # the end of the task is told before the end of its run
        self._changes.touch(instance)
        instance.started_at = attempt.started_at
        instance.reason = attempt.reason
        wish = _MARKED.get(attempt.stop_reason) if attempt.stop_reason is not None else None
        if wish is not None:
            self._runs.finish(instance, wish, attempt.stop_reason)
            self._changes.tell_end(told_at, attempt, instance)
            return
        if instance.state is TaskState.RESTARTING and run.cancel_requested_at is None:
            self._runs.reopen(instance, Happening.RESTART)
            self._runs.agenda.appendleft(self._runs.judge_reopened([instance]))
            self._changes.tell_end(told_at, attempt, instance)
            return
        if attempt.state is AttemptState.LOST and run.may_schedule:
            is_lost = attempt.reason is EndReason.LOST  # not merely stopped together with its launcher
            if not is_lost or instance.lost_count < self._quota.limits.max_lost_attempts:
                after = move(instance.state, Happening.LOSE)
                assert after is not None
                instance.state = after
                instance.lost_count += is_lost
                self._quota.wait_for_slots(instance)
                self._changes.tell_end(told_at, attempt, instance)
                return
        if report is not None:
            for name, value in report.xcoms.items():
                self._hand_on(instance, name, value)
        may_retry = run.may_schedule and (report is None or report.may_retry)
        tries = instance.try_number - instance.tries_cleared
        happening = judge_end(attempt.state, spec, tries, may_retry=may_retry)
        if happening is Happening.RETRY:
            after = move(instance.state, Happening.RETRY)
            assert after is not None
            instance.state = after
            instance.ended_at = self._changes.now
            instance.due_at = next_try_at(self._changes.now, run.row, spec, tries)
            self._timers.arm(instance.due_at, RetryDue(instance.key, instance.try_number))
        else:
            if happening is Happening.SUCCEED and report is not None:
                if report.output is not None:
                    self._hand_on(instance, XCOM_RETURN_KEY, report.output)
                elif spec.mapped and instance.task.is_mapped_over:
                    instance.reason = RETURNED_NOTHING
                if instance.task.is_mapped_over and report.length is not None and not spec.mapped:
                    self._runs.set_length(instance, report.length)
                self._apply_choice(instance, report)
            self._runs.finish(instance, happening, None)
            if happening is Happening.FAIL:
                self.when_failed(instance)
        self._changes.tell_end(told_at, attempt, instance)

    def _hand_on(self, instance: Instance, name: str, value: str) -> None:
        key = instance.key
        row = XComRow(
            run=key.run,
            task_id=key.task_id,
            map_index=key.map_index,
            key=name,
            value=value,
            created_at=self._changes.now,
        )
        self._changes.writes.append(Write(row))

    def _apply_choice(self, instance: Instance, report: Finished) -> None:
        """Skip what a branch did not follow, before it counts as finished: its end must let none of that start."""
        plan, task = instance.run.plan, instance.task
        if report.skip_below:
            skipped, choice = all_below(plan, task.index)
        elif report.follow is not None:
            skipped, choice = not_followed(plan, task.index, report.follow)
        else:
            return
        self._hand_on(instance, XCOM_CHOICE_KEY, choice)
        if instance.run.may_schedule:
            self._runs.skip(instance.run, skipped, why_skipped(task.spec.task_id))

    def stop(self, attempt: Attempt, reason: EndReason) -> None:
        """Ask for the end of an attempt. Its slots stay taken until its process has ended."""
        if attempt.stop_requested_at is not None:
            return
        self._changes.touch_attempt(attempt)
        attempt.stop_requested_at = self._changes.now
        attempt.stop_reason = reason
        self._changes.effects.append(
            StopAttempt(executor=attempt.row.executor, stop=StopOrder(attempt_id=attempt.id, reason=reason))
        )

    def stop_to(self, attempt: Attempt, wish: EndReason) -> None:
        """The same, and what then becomes of its task. The latest wish stands, whyever else it is being stopped."""
        self.stop(attempt, wish)
        if attempt.stop_reason is not wish:
            self._changes.touch_attempt(attempt)
            attempt.stop_reason = wish
