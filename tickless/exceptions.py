"""What a task may raise to say how it ends, beside any other exception. Airflow's names are the same classes.

from tickless.exceptions import TaskSkipped
"""

from __future__ import annotations


class AirflowException(Exception):
    """Base of what follows. A task that raises it fails like one that raises anything else, and may be retried."""


class TaskSkipped(AirflowException):
    """Raised by a task: it ends as skipped, and what follows only it is skipped too."""


class TaskFailed(AirflowException):
    """Raised by a task: it fails for good, whatever `retries` are left."""


class AirflowNotFoundException(AirflowException):
    """There is no such connection."""


AirflowSkipException = TaskSkipped
AirflowFailException = TaskFailed
