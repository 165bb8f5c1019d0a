"""Operators: the tasks of a DAG as objects. Making one adds it to its DAG; none of them does any work here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tickless.authoring.arguments import TaskArguments, check_task_arguments
from tickless.authoring.attributes import TaskAttributes
from tickless.authoring.context import CONTEXT_KEYS
from tickless.authoring.dag import DAG, current_dag
from tickless.authoring.field import Render, find, has_template, is_template_file, resolve
from tickless.authoring.mapping import Element, ItemElement, KeywordsElement, Partial
from tickless.authoring.place import DagError, caller, line_in
from tickless.authoring.relation import Relative
from tickless.authoring.xcom import RETURN_KEY, XComArg
from tickless.errors import UserError
from tickless.exceptions import AirflowException
from tickless.model.dag import MappedOver, TaskKind, TaskSpec, check_id

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance
    from tickless.authoring.group import TaskGroup


class Operator(TaskAttributes, Relative):
    """A task of a DAG. `upstream` are the ids of the tasks that it waits for, in the order they were given."""

    kind: ClassVar[TaskKind]
    template_fields: ClassVar[tuple[str, ...]] = ()
    """Attributes whose strings are templates and whose XComArgs are replaced when the task runs."""
    template_ext: ClassVar[tuple[str, ...]] = ()
    """Endings of strings in them that name a file with the template."""
    chooses: ClassVar[bool] = False
    """It says which of the tasks below it run."""
    own_arguments: ClassVar[frozenset[str]] = frozenset()
    """What a `@task` decorator of this operator takes beside the arguments of every task."""

    def __init__(self, task_id: str, given: TaskArguments, *, name: str | None = None) -> None:
        self.place = caller()
        self.name = name or type(self).__name__
        own: dict[str, Any] = {**given}
        dag = owner_of(own)
        group: TaskGroup | None = own.pop("task_group", None)
        own.pop("dag", None)
        if dag is None:
            raise DagError(
                f"task {task_id!r} is made outside of any DAG.",
                hint="Make it inside a function with @dag, inside `with DAG(...):`, or give it dag=...",
            )
        if not isinstance(dag, DAG):
            raise DagError(f"dag of task {task_id!r} is {dag!r}, but must be a DAG.")
        self.dag: DAG = dag
        self.group = group = group or dag.current_group()
        try:
            check_id("task_id", task_id)
            self.task_id = task_id if group is None else group.child_id(task_id)
            check_id("task_id", self.task_id)
        except UserError as error:
            raise DagError(error.message, hint=error.hint) from None
        defaults = dag.default_fields if group is None else group.default_fields
        self.fields = {**defaults, **check_task_arguments(f"{self.name} {task_id!r}", own)}
        self.weight_rule: str = self.fields.pop("weight_rule", "downstream")
        self.params: dict[str, Any] = self.fields.pop("params", {})
        self.multiple_outputs: bool = self.fields.pop("multiple_outputs", None) or False
        self.lineno = line_in(dag.file)
        self.upstream: dict[str, None] = {}
        self.reads: dict[tuple[str, str], None] = {}
        """(task id, key) of what its order must carry."""
        self.mapped: tuple[MappedOver, ...] = ()
        """What it is expanded over; empty = it is not mapped."""
        self.has_results = False
        """Some of its templated fields hold results of other tasks."""
        self.templates: list[str] = []
        """Those strings of its templated fields that are, or name, templates."""
        dag.add(self)
        if group is not None:
            group.add(self)

    @classmethod
    def partial(cls, *, task_id: str, **args: Any) -> OperatorPartial:
        """A mapped task: these arguments are the same for all its instances; `.expand(...)` gives the others."""
        return OperatorPartial(cls, {"task_id": task_id, **args})

    @property
    def output(self) -> XComArg:
        """What the task will return, to be passed to other tasks."""
        return XComArg(self)

    @property
    def needs_runner(self) -> bool:
        """Whether the DAG file has a part in its execution."""
        return self.kind is TaskKind.PYTHON

    def heads(self) -> list[Operator]:
        return [self]

    def tails(self) -> list[Operator]:
        return [self]

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Any:
        """Do its work, given the return values of the tasks in `inputs`. In a runner only, if `needs_runner`."""
        raise NotImplementedError

    def to_spec(self) -> TaskSpec:
        """The task as data; its weight is still its own one. Its templates are checked."""
        for text in self.templates:
            self._check_template(text)
        return TaskSpec(
            task_id=self.task_id,
            kind=self.kind,
            upstream=tuple(self.upstream),
            inputs=tuple(task_id for task_id, key in self.reads if key == RETURN_KEY),
            input_keys=tuple(pair for pair in self.reads if pair[1] != RETURN_KEY),
            mapped=self.mapped,
            group=self.group.group_id if self.group is not None else None,
            operator=self.name,
            lineno=self.lineno,
            **self.fields,
            **self._own_fields(),
        )

    def _own_fields(self) -> dict[str, Any]:
        return {}

    def _read(self) -> None:
        """Look through the templated fields: depend on every task whose return value is somewhere in them."""
        texts: list[str] = []
        for name in self.template_fields:
            for arg in find(getattr(self, name), texts):
                self.set_upstream(arg)
                self.has_results = True
                if isinstance(arg, Element):
                    self.mapped = arg.expansion.to_spec()
                self.reads.update(dict.fromkeys(arg.reads()))
        self.templates = [text for text in texts if has_template(text, self.template_ext)]

    def _check_template(self, text: str) -> None:
        is_file = is_template_file(text, self.template_ext)
        pulls = self.dag.templates.check(f"a field of task {self.task_id!r}", text, is_file=is_file, place=self.place)
        for pull in pulls:
            # Of other tasks it cannot be known whether they have ended; it asks for theirs when it runs.
            # So it does for the values of a mapped task.
            if pull not in self.reads and self.dag.is_above(pull[0], self) and not self.dag.tasks[pull[0]].mapped:
                self.reads[pull] = None

    def _renderer(self, instance: TaskInstance | None) -> Render | None:
        """What renders the strings of its templated fields; None when there is nothing to render."""
        if instance is None or not self.templates:
            return None
        templates, extensions, context = self.dag.templates, self.template_ext, instance.get_template_context()

        def render(text: str) -> Any:
            if not has_template(text, extensions):
                return text
            is_file = is_template_file(text, extensions)
            return templates.render(f"a field of task {self.task_id!r}", text, context, is_file=is_file)

        return render

    def __repr__(self) -> str:
        return f"<{self.name} {self.task_id!r}>"


class OperatorPartial(Partial):
    """Some arguments of an operator, to be expanded over others: over its templated fields."""

    def __init__(self, operator: type[Operator], args: Mapping[str, Any]) -> None:
        super().__init__(f"{operator.__name__} {args['task_id']!r}", args, owner_of(args))
        self._operator = operator
        if operator.chooses:
            raise no_choice(self.what)

    def expand(self, **mapped: Any) -> Operator:
        """One instance for each element of the cross product of these lists, the last one varying fastest."""
        expansion = self.expansion(mapped)
        self._check(mapped)
        return self._operator(**self.args, **expansion.elements())

    def expand_kwargs(self, mapped: Any) -> Operator:
        """One instance for each dict of arguments in a list."""
        expansion = self.expansion({"": mapped})
        allowed = [name for name in self._operator.template_fields if name not in self.args]
        names = allowed
        if not isinstance(mapped, XComArg):
            given = dict.fromkeys(name for each in mapped if isinstance(each, dict) for name in each)
            if both := sorted(given.keys() & self.args.keys()):
                raise DagError(f"{self.what}: {', '.join(both)} is given to both .partial() and .expand_kwargs().")
            self._check(given)
            names = [name for name in allowed if name in given] or allowed
        args = {name: ItemElement(expansion, name, allowed=allowed, base=self.args) for name in names}
        return self._operator(**{**self.args, **args})

    def _check(self, names: Iterable[str]) -> None:
        if wrong := [name for name in names if name not in self._operator.template_fields]:
            raise DagError(
                f"{self.what} cannot be mapped over {', '.join(wrong)}.",
                hint=f"It can be mapped over {', '.join(self._operator.template_fields) or 'nothing'}; "
                "what is the same for every instance goes to .partial().",
            )


def owner_of(args: Mapping[str, Any]) -> Any:
    """The DAG that a task with these arguments will belong to, as far as they or a `with` block say."""
    group: TaskGroup | None = args.get("task_group")
    return args.get("dag") or (group.dag if group is not None else None) or current_dag()


def no_choice(what: str) -> DagError:
    """The refusal to map a task that chooses what runs below it."""
    return DagError(
        f"{what} chooses what runs below it, and so cannot be mapped: its instances would contradict each other.",
        hint="Map a task that returns what there is to choose from, and let one task below it choose.",
    )


class EmptyOperator(Operator):
    """Does nothing: a joint in the graph. It succeeds as soon as its trigger rule holds; no process is started."""

    kind = TaskKind.EMPTY

    def __init__(self, *, task_id: str, **args: Unpack[TaskArguments]) -> None:
        super().__init__(task_id, args)


class PythonOperator(Operator):
    """Calls a function of the DAG file with `op_args` and `op_kwargs`, which may hold other tasks' `.output`.

    Parameters of the function with the name of a key of the context (`ti`, `ds`, `params` …) that it is not given are
    filled from it; a function that takes `**context` gets all of it.
    """

    kind = TaskKind.PYTHON
    template_fields: ClassVar[tuple[str, ...]] = ("templates_dict", "op_args", "op_kwargs")
    own_arguments = frozenset({"templates_dict", "templates_exts"})

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | XComArg = (),
        op_kwargs: Mapping[str, Any] | XComArg | None = None,
        templates_dict: Mapping[str, Any] | XComArg | None = None,
        templates_exts: Sequence[str] = (),
        _name: str | None = None,
        **args: Unpack[TaskArguments],
    ) -> None:
        if getattr(type(python_callable), "is_task_factory", False):
            raise DagError(f"python_callable of task {task_id!r} is a @task function already.", hint="Just call it.")
        if not callable(python_callable):
            raise DagError(f"python_callable of task {task_id!r} is {python_callable!r}, which cannot be called.")
        super().__init__(task_id, args, name=_name)
        self.python_callable = python_callable
        self.op_args: Any = op_args if isinstance(op_args, Element) else tuple(op_args or ())
        self.op_kwargs: Any = op_kwargs if isinstance(op_kwargs, Element) else dict(op_kwargs or {})
        self.templates_dict: Any = templates_dict
        if templates_dict is not None and not isinstance(templates_dict, Element):
            self.templates_dict = dict(templates_dict)
        self.template_ext = tuple(templates_exts)  # type: ignore[misc]  # of the class for other operators
        self.wanted = self._check_call()
        """Names of the context that the function is given."""
        self._read()

    def call(self, inputs: Mapping[Any, Any], instance: TaskInstance | None = None) -> Any:
        """Run the function; an async function runs to its end."""
        render = self._renderer(instance)
        args, kwargs = resolve(self.op_args, inputs, render) or (), resolve(self.op_kwargs, inputs, render) or {}
        if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
            raise AirflowException(
                f"task {self.task_id!r} is to be called with op_args {args!r:.100}, op_kwargs {kwargs!r:.100}; "
                "these must be a list and a dict"
            )
        if instance is not None:
            instance.multiple_outputs = self.multiple_outputs
            if self.wanted:
                context = instance.get_template_context()
                context["templates_dict"] = resolve(self.templates_dict, inputs, render)
                kwargs = {**context.arguments(self.wanted, self.python_callable), **kwargs}
        result = self.python_callable(*args, **kwargs)
        if inspect.iscoroutine(result):
            import asyncio

            return asyncio.run(result)
        return result

    def _check_call(self) -> tuple[str, ...]:
        """A wrong call is an error of the DAG file now, not of the task at night."""
        try:
            signature = inspect.signature(self.python_callable)
        except (TypeError, ValueError):  # a callable in C may have no signature to check against
            return ()
        name = getattr(self.python_callable, "__name__", repr(self.python_callable))
        is_open = isinstance(self.op_args, Element) or isinstance(self.op_kwargs, Element)
        args = () if isinstance(self.op_args, Element) else self.op_args
        kwargs = self.op_kwargs
        try:
            if isinstance(kwargs, Element):
                for each in kwargs.literals:
                    self._bind(signature, args, each)
                kwargs = kwargs.base if isinstance(kwargs, KeywordsElement) else {}
            return self._bind(signature, args, kwargs, is_open=is_open)
        except TypeError as error:
            raise DagError(f"task {self.task_id!r} cannot call {name}{signature}: {error}.") from None

    @staticmethod
    def _bind(
        signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], *, is_open: bool = False
    ) -> tuple[str, ...]:
        """Names of the context that the function is given. Raises TypeError; `is_open`: more is to come."""
        bound = signature.bind_partial(*args, **kwargs).arguments
        wanted = []
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return tuple(sorted(CONTEXT_KEYS - bound.keys()))
            if parameter.name in bound or parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if parameter.name in CONTEXT_KEYS and parameter.kind is not parameter.POSITIONAL_ONLY:
                wanted.append(parameter.name)
            elif parameter.default is parameter.empty and not is_open:
                raise TypeError(f"missing a required argument: {parameter.name!r}")
        return tuple(wanted)
