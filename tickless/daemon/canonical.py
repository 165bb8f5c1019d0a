"""The log's canonical lines: one per finished attempt, one per step of a run."""

from __future__ import annotations

from tickless.core.decision import AttemptEnded, RunChanged, BackfillChanged, BackfillStep
from tickless.model.state import FINISHED_RUN_STATES, AttemptState, RunState
from tickless.telemetry.log import get_log

log = get_log()


def log_attempt(ended: AttemptEnded) -> None:
    """The one canonical line of a finished attempt, or that of a lost one."""
    row = ended.attempt
    if row.state is AttemptState.LOST:
        log.warning(
            "attempt.lost",
            dag_id=ended.dag_id,
            run_id=ended.run_id,
            run=row.run,
            task_id=row.task_id,
            map_index=row.map_index,
            try_number=row.try_number,
            attempt_id=row.attempt_id,
            why=row.error or row.reason,
            executor=row.executor,
            host=row.host,
        )
        return
    started = row.started_at
    log.info(
        "attempt.finished",
        dag_id=ended.dag_id,
        run_id=ended.run_id,
        run=row.run,
        task_id=row.task_id,
        map_index=row.map_index,
        try_number=row.try_number,
        attempt_id=row.attempt_id,
        state=row.state.value,
        reason=row.reason.value if row.reason is not None else None,
        exit_code=row.exit_code,
        signal=row.signal,
        queued_seconds=round((started - row.queued_at).total_seconds(), 6) if started is not None else None,
        run_seconds=(
            round((row.ended_at - started).total_seconds(), 6)
            if started is not None and row.ended_at is not None
            else None
        ),
        executor=row.executor,
        queue=row.queue,
        pool=row.pool,
        pid=row.pid,
        host=row.host,
        error=row.error.strip().rsplit("\n", 1)[-1] if row.error else None,
    )


def log_run(change: RunChanged) -> None:
    """A run was made, started, or ended."""
    about = {"dag_id": change.dag_id, "run_id": change.run_id, "run": change.run}
    if change.state in FINISHED_RUN_STATES:
        log.info("run.finished", **about, state=change.state.value, seconds=change.seconds)
    elif change.state is RunState.RUNNING:
        log.debug("run.started", **about)
    else:
        log.info("run.created", **about)


def log_backfill(news: BackfillChanged) -> None:
    """What has become of a backfill."""
    about = {"backfill": news.backfill, "dag_id": news.dag_id}
    match news.step:
        case BackfillStep.CREATED:
            log.info("backfill.created", **about)
        case BackfillStep.PAUSED:
            log.info("backfill.paused", **about)
        case BackfillStep.UNPAUSED:
            log.info("backfill.unpaused", **about)
        case BackfillStep.CANCELLED:
            log.info("backfill.cancelled", **about, made=news.made, passed=news.passed)
        case BackfillStep.COMPLETED:
            log.info("backfill.completed", **about, made=news.made, passed=news.passed)
