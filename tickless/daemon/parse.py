"""Parse DAG files in child processes. The daemon sees the resulting document and nothing else of the user's code."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL

import anyio
import msgspec

from tickless.errors import UserError
from tickless.model.dag import DagSpec
from tickless.model.parse import ParseProblem, ParseResult
from tickless.wire.environment import base_environment

TIMEOUT_KEY = "[dags] parse_timeout_seconds"

_MAX_RESULT_BYTES = 16 * 1024 * 1024
_MAX_OUTPUT_BYTES = 16 * 1024
_decoder = msgspec.json.Decoder(ParseResult)


async def parse_file(bundle: Path, file: str, *, timeout_seconds: float) -> ParseResult:
    """Parse one file of a bundle in a child; whatever is wrong with it is in the result's `problem`.

    Neither a timeout nor a cancellation leaves a process behind. How many run at once is the caller's to limit.
    """
    result_end, result_fd = os.pipe()
    output_end, output_fd = os.pipe()
    answer, output = _Drain(result_end, _MAX_RESULT_BYTES), _Drain(output_end, _MAX_OUTPUT_BYTES)
    try:
        try:
            process = await anyio.open_process(
                [
                    *(sys.executable, "-B", "-P", "-X", "utf8", "-m", "tickless.runner.parse"),
                    *("--bundle", str(bundle), "--file", file, "--result-fd", str(result_fd)),
                ],
                stdin=DEVNULL,
                stdout=output_fd,
                stderr=output_fd,
                start_new_session=True,
                pass_fds=(result_fd,),
                cwd=bundle,
                env=base_environment(os.environ),  # what its tasks will see, and no secret of the daemon
            )
        finally:
            os.close(result_fd)
            os.close(output_fd)
        try:
            async with anyio.create_task_group() as readers:
                readers.start_soon(answer.run)
                readers.start_soon(output.run)
                with anyio.move_on_after(timeout_seconds) as limit:
                    await process.wait()
                readers.cancel_scope.cancel()
        finally:
            # The group: what the import has started goes with it.
            with anyio.CancelScope(shield=True):
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # everything has ended
                await process.wait()
        answer.take()
        output.take()
    finally:
        os.close(result_end)
        os.close(output_end)
    return _result(file, timeout_seconds if limit.cancelled_caught else None, process.returncode, answer, output)


def _result(file: str, timeout: float | None, code: int | None, answer: _Drain, output: _Drain) -> ParseResult:
    printed = output.text()
    if timeout is not None:
        problem = ParseProblem(
            message=f"importing {file} took longer than {timeout:g} s",
            file=file,
            hint=f"Move work into tasks, or raise {TIMEOUT_KEY} in the configuration.",
            output=printed,
        )
        return ParseResult(file=file, problem=problem)
    if answer.size > _MAX_RESULT_BYTES:
        problem = ParseProblem(
            message=f"the DAGs of {file} make {answer.size} bytes of data, which is too much", file=file
        )
        return ParseResult(file=file, problem=problem)
    try:
        result = _decoder.decode(answer.kept)
        for dag in result.dags:  # user code shares a process with the writer: believe no graph unchecked
            spec = dag.spec
            DagSpec.build(dag_id=spec.dag_id, tasks=spec.tasks)
    except (msgspec.DecodeError, UnicodeDecodeError, UserError):
        problem = ParseProblem(message=_death(file, code), file=file, output=printed)
        return ParseResult(file=file, problem=problem)
    if result.problem is not None:
        return replace(result, problem=replace(result.problem, output=printed))
    if printed is not None:
        noise = f"it prints while it is imported ({output.size} bytes): {printed.strip().splitlines()[0][:120]}"
        return replace(result, warnings=(*result.warnings, noise))
    return result


def _death(file: str, code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process that imported {file} was killed by {signal.Signals(-code).name}"
    return f"importing {file} ended the process (exit code {code}) before it was done: os._exit() or a crash"


class _Drain:
    """Reads a pipe for as long as somebody writes, and keeps the first `limit` bytes; `size` counts them all."""

    def __init__(self, fd: int, limit: int) -> None:
        os.set_blocking(fd, False)
        self.kept = b""
        self.size = 0
        self._fd = fd
        self._limit = limit

    async def run(self) -> None:
        """Read until nobody can write any more."""
        while self.take():
            await anyio.wait_readable(self._fd)

    def take(self) -> bool:
        """Read what is there; False at the end of the pipe."""
        # Bounded: a writer that never stops must not keep the loop to itself.
        for _ in range(64):
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.size += len(data)
            self.kept += data[: max(0, self._limit + 1 - len(self.kept))]
        return True

    def text(self) -> str | None:
        """What was kept, for people; None when there is nothing but space."""
        text = self.kept[: self._limit].decode("utf-8", "replace").replace("\x00", "\ufffd")
        if self.size > self._limit:
            text += f"\n… {self.size - self._limit} more bytes"
        return text if text.strip() else None
