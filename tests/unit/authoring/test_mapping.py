"""Dynamic task mapping as it is written: what it becomes as data, what an instance gets, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.authoring.instances import run
from tickless import (
    DAG,
    BashOperator,
    BranchPythonOperator,
    EmptyOperator,
    PythonOperator,
    TriggerDagRunOperator,
    chain,
    task,
    task_group,
)
from tickless.authoring import daemon as daemon_module
from tickless.authoring.bash import Command
from tickless.authoring.daemon import XCom
from tickless.authoring.place import DagError
from tickless.exceptions import AirflowException
from tickless.model.dag import MappedOver, TaskSpec


@task
def numbers() -> list[int]:
    return [1, 2]


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@task.bash
def says(word: str) -> str:
    return f"echo {word}"


def text_of(x: Any) -> str:
    return repr(x)


def over(argument: str, source: int | str) -> MappedOver:
    return (
        MappedOver(argument=argument, length=source)
        if isinstance(source, int)
        else MappedOver(argument=argument, task_id=source)
    )


def written(write: Callable[[], Any]) -> TaskSpec:
    """The last task that is made."""
    with DAG("x") as made:
        write()
    return made.to_spec().tasks[-1]


@pytest.mark.parametrize(
    ("write", "mapped", "upstream"),
    [
        (lambda: add.expand(x=[1, 2, 3]), [over("x", 3)], ()),
        (lambda: add.expand(x=(1, 2)), [over("x", 2)], ()),
        (lambda: add.expand(x=range(4)), [over("x", 4)], ()),
        (lambda: add.expand(x={"a": 1, "b": 2}), [over("x", 2)], ()),
        (lambda: add.expand(x=[]), [over("x", 0)], ()),
        (lambda: add.partial(y=1).expand(x=[1]), [over("x", 1)], ()),
        (lambda: add.expand(y=[1, 2], x=[1]), [over("y", 2), over("x", 1)], ()),
        (lambda: add.expand(x=numbers()), [over("x", "numbers")], ("numbers",)),
        (lambda: add.expand(x=numbers(), y=[1]), [over("x", "numbers"), over("y", 1)], ("numbers",)),
        (lambda: add.expand(x=[1, numbers()]), [over("x", 2)], ("numbers",)),
        (lambda: add.partial(y=numbers()).expand(x=[1]), [over("x", 1)], ("numbers",)),
        (lambda: add.expand_kwargs([{"x": 1}, {"x": 2, "y": 3}]), [over("", 2)], ()),
        (lambda: add.expand_kwargs(numbers()), [over("", "numbers")], ("numbers",)),
        (lambda: add.override(retries=2).expand(x=[1]), [over("x", 1)], ()),
        (lambda: says.expand(word=["a", "b"]), [over("word", 2)], ()),
        (lambda: BashOperator.partial(task_id="b").expand(bash_command=["ls"]), [over("bash_command", 1)], ()),
        (
            lambda: BashOperator.partial(task_id="b", bash_command="env").expand(env=numbers()),
            [over("env", "numbers")],
            ("numbers",),
        ),
        (
            lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand(op_args=[[1], [2]]),
            [over("op_args", 2)],
            (),
        ),
        (
            lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand_kwargs(
                [{"op_kwargs": {"x": 1}}]
            ),
            [over("", 1)],
            (),
        ),
        (
            lambda: TriggerDagRunOperator.partial(task_id="t", trigger_dag_id="y").expand(conf=[{}, {}]),
            [over("conf", 2)],
            (),
        ),
    ],
)
def test_what_is_mapped_over(write: Callable[[], Any], mapped: list[MappedOver], upstream: tuple[str, ...]) -> None:
    spec = written(write)
    assert (list(spec.mapped), spec.upstream) == (mapped, upstream)
    assert not spec.inputs or "numbers" not in {each.task_id for each in mapped}


def test_arguments_of_the_task_stay_and_groups_give_names() -> None:
    @task_group
    def part() -> None:
        BashOperator.partial(task_id="b", retries=3, pool="small").expand(bash_command=["ls", "pwd"])

    spec = written(part)
    assert (spec.task_id, spec.retries, spec.pool, spec.needs_runner) == ("part.b", 3, "small", True)


def test_it_stands_in_the_graph_like_any_task() -> None:
    with DAG("x") as made:
        first = EmptyOperator(task_id="first")
        chain(first, add.expand(x=[1]), EmptyOperator(task_id="last"))
        add.expand(x=[2])
    assert {spec.task_id: spec.upstream for spec in made.to_spec().tasks} == {
        "first": (), "add": ("first",), "last": ("add",), "add__1": (),
    }  # fmt: skip


BASH = "BashOperator 'b'"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda: add.expand(x=3), "@task 'add': .expand(x=...) is given 3 (int), but must be given a list, a dict, or"),
        (lambda: add.expand(x="abc"), "is given 'abc' (str), but must be given a list"),
        (lambda: add.expand(x=None), "is given None (NoneType)"),
        (lambda: add.expand(x={1, 2}), "(set), but must be given a list"),
        (lambda: add.expand(x=(n for n in (1, 2))), "(generator), but must be given a list"),
        (lambda: add.expand(), "@task 'add': .expand() is given nothing to map over"),
        (lambda: add.partial(x=1).expand(), ".expand() is given nothing to map over"),
        (lambda: add.partial(x=1).expand(x=[1]), "@task 'add': x is given to both .partial() and .expand()"),
        (lambda: add.expand(z=[1]), "got an unexpected keyword argument 'z'"),
        (lambda: add.partial(z=1).expand(x=[1]), "got an unexpected keyword argument 'z'"),
        (lambda: add.expand(y=[1]), "missing a required argument: 'x'"),
        (lambda: add.partial(y=1), "@task 'add' is given .partial(), but is never expanded"),
        (lambda: add.partial(y=1)(2), "@task 'add' is given .partial() and then called"),
        (lambda: add.partial(y=1) >> EmptyOperator(task_id="e"), "'add', not expanded> is used as a task"),
        (lambda: EmptyOperator(task_id="e") >> add.partial(y=1), "'add', not expanded> is used as a task"),
        (lambda: add(add.partial(y=1)), "'add', not expanded> is passed to a task as a value"),
        (lambda: add.expand(x=numbers), ".expand(x=...) is given <@task function 'numbers'>. Map over what it returns"),
        (lambda: add.expand(x=EmptyOperator(task_id="e")), "Map over what it returns: .output"),
        (lambda: add.expand(x=numbers()["a"]), "can only be mapped over the whole of what another one returns"),
        (lambda: add.expand_kwargs({"x": 1}), ".expand_kwargs(...) is given {'x': 1} (dict), but must be given a list"),
        (lambda: add.expand_kwargs([{"x": 1}, 2]), "is given 2 in its list, but must be given dicts"),
        (lambda: add.expand_kwargs([{"x": 1}, {"z": 2}]), "got an unexpected keyword argument 'z'"),
        (lambda: add.expand_kwargs([{"x": 1}, {"y": 2}]), "missing a required argument: 'x'"),
        (lambda: BashOperator.partial(task_id="b"), f"{BASH} is given .partial(), but is never expanded"),
        (lambda: BashOperator.partial(task_id="b").expand(), f"{BASH}: .expand() is given nothing"),
        (lambda: BashOperator.partial(task_id="b").expand(bash_command="ls"), f"{BASH}: .expand(bash_command=...)"),
        (
            lambda: BashOperator.partial(task_id="b", bash_command="ls").expand(bash_command=["ls"]),
            f"{BASH}: bash_command is given to both",
        ),
        (
            lambda: BashOperator.partial(task_id="b", bash_command="ls").expand_kwargs([{"bash_command": "ls"}]),
            f"{BASH}: bash_command is given to both",
        ),
        (
            lambda: BashOperator.partial(task_id="b", bash_command="ls").expand(retries=[1, 2]),
            f"{BASH} cannot be mapped over retries. It can be mapped over bash_command, env, cwd",
        ),
        (
            lambda: BashOperator.partial(task_id="b").expand_kwargs([{"bash_comand": "ls"}]),
            f"{BASH} cannot be mapped over bash_comand",
        ),
        (
            lambda: BashOperator.partial(task_id="b", retires=1).expand(bash_command=["ls"]),
            "has no argument 'retires'. Did you mean 'retries'?",
        ),
        (lambda: EmptyOperator.partial(task_id="e").expand(x=[1]), "It can be mapped over nothing"),
        (
            lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand(op_kwargs=[{"y": 1}]),
            "got an unexpected keyword argument 'y'",
        ),
        (
            lambda: BranchPythonOperator.partial(task_id="b", python_callable=text_of).expand(op_args=[[1]]),
            "chooses what runs below it, and so cannot be mapped",
        ),
        (lambda: task.branch(text_of).expand(x=["a"]), "chooses what runs below it"),
        (lambda: task.short_circuit(text_of).expand(x=["a"]), "chooses what runs below it"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(write: Callable[[], Any], words: str) -> None:
    with pytest.raises(DagError) as caught:
        written(write)
    assert words in str(caught.value)
    assert caught.value.place.file == __file__
    assert caught.value.place.line == write.__code__.co_firstlineno


@pytest.mark.parametrize(
    ("write", "elements", "result"),
    [
        (lambda: add.partial(y=10).expand(x=[1, 2, 3]), {"x": 2}, 13),
        (lambda: add.expand(x=[1, 2], y=[10, 20]), {"x": 1, "y": 0}, 12),
        (lambda: add.expand(x=[1, numbers()], y=[[]]), {"x": 1, "y": 0, "numbers": [5]}, [5]),
        (lambda: add.expand(x=numbers()), {"x": 7}, 7),
        (lambda: add.expand_kwargs([{"x": 1}, {"x": 2, "y": 3}]), {"": 1}, 5),
        (lambda: add.partial(y=4).expand_kwargs(numbers()), {"": {"x": 3}}, 7),
        (lambda: task(text_of).expand(x={"a": 1, "b": 2}), {"x": 1}, "('b', 2)"),
        (lambda: task(text_of).expand(x=numbers()), {"x": ("k", 1)}, "('k', 1)"),
        (lambda: task(text_of).expand(x=["{{ ti.map_index }}"]), {"x": 0}, "'0'"),
        (lambda: task(text_of).expand(x=numbers()), {"x": "{{ ti.map_index }}"}, "'{{ ti.map_index }}'"),
        (lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand(op_args=[[1], ["{{ ds }}"]]),
         {"op_args": 1}, "'2026-11-22'"),
        (lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand_kwargs(numbers()),
         {"": {"op_kwargs": {"x": 8}}}, "8"),
    ],
)  # fmt: skip
def test_what_an_instance_gets(write: Callable[[], Any], elements: dict[str, Any], result: Any) -> None:
    task_id = written(write).task_id
    inputs = {key if key == "numbers" else (None, key): value for key, value in elements.items()}
    assert run(task_id, inputs, map_index=0) == result


@pytest.mark.parametrize(
    ("write", "elements", "text"),
    [
        (lambda: says.expand(word=["a", "b"]), {"word": 1}, "echo b"),
        (lambda: BashOperator.partial(task_id="b").expand(bash_command=["ls", "echo {{ ti.map_index }}"]),
         {"bash_command": 1}, "echo 3"),
        (lambda: BashOperator.partial(task_id="b").expand_kwargs(numbers()),
         {"": {"bash_command": "echo $A", "env": {"A": "1"}}}, "echo $A"),
    ],
)  # fmt: skip
def test_what_an_instance_of_a_command_gets(write: Callable[[], Any], elements: dict[str, Any], text: str) -> None:
    task_id = written(write).task_id
    command = run(task_id, {(None, key): value for key, value in elements.items()}, map_index=3)
    assert isinstance(command, Command) and command.text == text


@pytest.mark.parametrize(
    ("write", "element", "error", "words"),
    [
        (lambda: add.expand_kwargs(numbers()), {"z": 1}, TypeError, "unexpected keyword argument 'z'"),
        (lambda: add.expand_kwargs(numbers()), 3, AirflowException, "an element of expand_kwargs is 3, but must be"),
        (lambda: add.expand_kwargs(numbers()), {"a": 1, 2: 3}, AirflowException, "with names of arguments"),
        (lambda: add.partial(x=1).expand_kwargs(numbers()), {"x": 2}, AirflowException, "x is given to .partial()"),
        (lambda: BashOperator.partial(task_id="b").expand_kwargs(numbers()), {"bash_comand": "ls"}, AirflowException,
         "has 'bash_comand', which cannot be mapped over; it can have bash_command, env, cwd"),
        (lambda: BashOperator.partial(task_id="b").expand_kwargs(numbers()), {"env": {}}, AirflowException,
         "the command of task 'b' is None"),
        (lambda: PythonOperator.partial(task_id="p", python_callable=text_of).expand_kwargs(numbers()),
         {"op_args": 3}, AirflowException, "is to be called with op_args 3"),
    ],
)  # fmt: skip
def test_an_element_that_does_not_fit_fails_its_instance(
    write: Callable[[], Any], element: Any, error: type[Exception], words: str
) -> None:
    task_id = written(write).task_id
    with pytest.raises(error) as caught:
        run(task_id, {(None, ""): element}, map_index=0)
    assert words in str(caught.value)


def test_a_literal_that_has_shrunk_since_the_file_was_parsed_is_told() -> None:
    task_id = written(lambda: add.expand(x=[1, 2])).task_id
    with pytest.raises(AirflowException, match="must not change between imports"):
        run(task_id, {(None, "x"): 2}, map_index=2)


class Pages:
    """A daemon that has the values of one mapped task, two to a page."""

    def __init__(self, values: dict[int, Any]) -> None:
        self.values = values
        self.asked: list[Any] = []

    def xcoms(self, **asked: Any) -> list[XCom]:
        self.asked.append(asked["after"])
        assert asked["task_ids"] == ["add"]
        left = [(index, value) for index, value in sorted(self.values.items()) if index > asked["after"]]
        return [XCom(task_id="add", map_index=index, value=value) for index, value in left[:2]]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    held = Pages({0: 1, 2: 3, 3: 4, 7: 8})
    monkeypatch.setattr(daemon_module._Held, "daemon", held)
    return held


@pytest.mark.parametrize(
    ("use", "result", "asked"),
    [
        (lambda values: list(values), [1, 3, 4, 8], [-1, 2, 7]),
        (lambda values: sum(values), 16, [-1, 2, 7]),
        (lambda values: len(values), 4, [-1, 2, 7]),
        (lambda values: values[0], 1, [-1]),
        (lambda values: values[-1], 8, [-1, 2, 7]),
        (lambda values: values[1:3], [3, 4], [-1, 2, 7]),
        (lambda values: [next(iter(values)), next(iter(values))], [1, 1], [-1]),
        (lambda values: values == [1, 3, 4, 8], True, [-1, 2, 7]),
        (lambda values: values == [1, 3], False, [-1, 2]),
        (lambda values: 8 in values, True, [-1, 2]),
        (lambda values: None, None, []),
    ],
)
def test_below_a_mapped_task_its_values_are_read_as_they_are_used(
    use: Callable[[Any], Any], result: Any, asked: list[int], pages: Pages
) -> None:
    spec = written(lambda: task(task_id="use")(use)(add.expand(x=[1, 2])))
    assert (spec.upstream, spec.inputs) == (("add",), ())
    assert run("use", {}) == result
    assert pages.asked == asked


def test_an_item_of_each_value(pages: Pages) -> None:
    pages.values = {0: {"k": 1}, 1: {"k": 2}}
    written(lambda: task(task_id="use")(list)(add.expand(x=[1, 2])["k"]))
    assert run("use", {}) == [1, 2]
