"""Parse one DAG file: `python -B -P -m tickless.runner.parse --bundle DIR --file REL --result-fd N`.

A child of the daemon, and the only place where a DAG file is imported to look at it. Writes one JSON document, a
`ParseResult`, to the result descriptor; stdout and stderr belong to the user's code. It leaves by os._exit, so
threads and exit handlers of the user's code cannot hold it; a hanging import is ended by the daemon.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import traceback
from types import TracebackType

import msgspec

from tickless.authoring import registry
from tickless.authoring.loader import load_dag_file
from tickless.authoring.place import DagError, is_own_code
from tickless.errors import UserError
from tickless.model.parse import ParsedDag, ParseProblem, ParseResult
from tickless.runner.closure import Recorder, closure, digest, relative
from tickless.runner.leftover import leftovers

_LONGEST_TRACEBACK = 16 * 1024
_MOST_WARNINGS = 20


def main() -> None:
    """Parse the file that the command line names."""
    options = argparse.ArgumentParser()
    options.add_argument("--bundle", required=True)
    options.add_argument("--file", required=True)
    options.add_argument("--result-fd", required=True, type=int)
    given = options.parse_args()
    os.set_inheritable(given.result_fd, False)
    result = parse(os.path.abspath(given.bundle), given.file)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the user's code may have closed or replaced it
    remaining = memoryview(msgspec.json.encode(result))
    while remaining:
        remaining = remaining[os.write(given.result_fd, remaining) :]
    os._exit(0)


def parse(bundle: str, file: str) -> ParseResult:
    """Import the file into this process and collect what it defines. Not to be called twice in a process."""
    recorder = Recorder(bundle)
    problem = None
    specs = []
    try:
        load_dag_file(bundle, file)
        specs = registry.collect(os.path.join(bundle, file))
    except BaseException as error:
        problem = _problem(bundle, file, error)
    recorder.is_active = False
    entries = closure(bundle, file, recorder)
    warnings = [*registry.warnings(os.path.join(bundle, file))] if problem is None else []
    warnings += [f"it connects to {where} while it is imported" for where in dict.fromkeys(recorder.connections)]
    warnings += leftovers()
    content = digest(bundle, entries)
    return ParseResult(
        file=file,
        dags=tuple(ParsedDag(spec=spec, hash=_hash(spec, content)) for spec in specs),
        closure=entries,
        problem=problem,
        warnings=tuple(_storable(warning)[:500] for warning in warnings[:_MOST_WARNINGS]),
    )


def _hash(spec: object, content: str) -> str:
    return hashlib.sha256(msgspec.json.encode(spec, order="deterministic") + content.encode()).hexdigest()


def _problem(bundle: str, file: str, error: BaseException) -> ParseProblem:
    """The exception as its author needs it: the line in their code, and no frame of ours."""
    hint = None
    where, line = _last_place(bundle, error.__traceback__) or (file, None)
    if isinstance(error, DagError):
        message, hint = error.message, error.hint
        where, line = relative(bundle, error.place.file) or where, error.place.line
    elif isinstance(error, UserError):
        message, hint = error.message, error.hint
    elif isinstance(error, SystemExit):
        message = f"the file calls sys.exit({'' if error.code is None else repr(error.code)}) while it is imported"
        hint = "Put what is to run as a script under `if __name__ == '__main__':`."
    else:
        if isinstance(error, SyntaxError) and error.filename and (inside := relative(bundle, error.filename)):
            where, line = inside, error.lineno
        message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        if isinstance(error, ModuleNotFoundError):
            hint = _way_out(error.name or "")
    return ParseProblem(
        message=_storable(message.replace(bundle + os.sep, "")),
        file=_storable(where),
        line=line,
        hint=hint,
        traceback=_storable(_user_traceback(error).replace(bundle + os.sep, "")),
    )


def _way_out(module: str) -> str:
    if module.partition(".")[0] == "airflow":
        return "Import from `tickless` instead, as in `from tickless import DAG, task`."
    return f"If it is a package, install it for {sys.executable}; a file of yours must lie in the DAG folder."


def _last_place(bundle: str, trace: TracebackType | None) -> tuple[str, int] | None:
    """The innermost line inside the bundle."""
    place = None
    for frame, line in traceback.walk_tb(trace):
        if inside := relative(bundle, frame.f_code.co_filename):
            place = inside, line
    return place


def _user_traceback(error: BaseException) -> str:
    """The traceback, with its causes, without frames of tickless and of the import system."""
    whole = traceback.TracebackException.from_exception(error, compact=True)
    seen = [whole]
    for part in seen:  # grows while it is walked
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if not is_own_code(f.filename)])
        others = (part.__cause__, part.__context__, *(part.exceptions or ()))
        seen += [other for other in others if other is not None]
    text = "".join(whole.format())
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def _storable(text: str) -> str:
    """Without what neither JSON nor Postgres takes: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
