"""Mapped tasks in a whole daemon: what each instance gets, what becomes of them, and what reads their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.stage import Stage

FILES = {
    "values.py": """
@task
def show(*args, ti, **kwargs):
    kwargs = {name: value for name, value in kwargs.items() if name in ("x", "y")}
    return [ti.map_index, *args, kwargs]

@task
def see(x, y=None, ti=None):
    return [ti.map_index, os.environ["TICKLESS_MAP_INDEX"], x, y]

@task
def numbers():
    return [10, "{{ ds }}", None]

@task
def letters():
    return {"a": 1, "b": [2]}

@task(trigger_rule="all_done")
def collect(values):
    return list(values)

@task
def pick(number):
    if number == 1:
        return None
    if number == 2:
        raise AirflowSkipException()
    if number == 3:
        raise ValueError("three")
    return number * 10

from tickless.exceptions import AirflowSkipException

with DAG("literals"):
    collect(see.expand(x=[1, "two", {"three": 3}]))
with DAG("pairs"):
    collect(see.expand(x={"a": 1, "b": 2}))
with DAG("outputs"):
    collect(see.partial(y="same").expand(x=numbers()))
with DAG("items"):
    collect(see.expand(x=letters()))
with DAG("product"):
    collect(see.expand(x=numbers(), y=["p", "q"]))
with DAG("keywords"):
    collect(see.expand_kwargs([{"x": 1}, {"x": 2, "y": 3}]))
with DAG("empty"):
    collect(see.expand(x=[])) >> EmptyOperator(task_id="after", trigger_rule="none_failed")
with DAG("holes"):
    collect(pick.expand(number=[0, 1, 2, 3, 4]))
with DAG("twice"):
    # over the values of a mapped task: there are as many instances as it has returned values
    collect(see.override(task_id="again", trigger_rule="all_done").expand(x=pick.expand(number=[0, 1, 2, 3, 4])))
with DAG("commands"):
    said = BashOperator.partial(task_id="say").expand(
        bash_command=["echo $TICKLESS_MAP_INDEX one", "echo {{ ti.map_index }} two", "exit 99", "exit 1"])
    collect(said.output)
with DAG("pulled"):
    see.expand(x=[1, 2]) >> PythonOperator(
        task_id="pulls", python_callable=lambda all_of, one: [all_of, one],
        op_args=["{{ ti.xcom_pull('see') }}", "{{ ti.xcom_pull('see', map_indexes=1) }}"])
with DAG("in_a_command"):
    all_of = numbers.override(task_id="n").expand_kwargs([{}, {}])
    BashOperator(task_id="prints", bash_command="echo $ALL", env={"ALL": all_of})
""",
    "faults.py": """
@task
def three():
    return 3
@task
def none():
    pass
@task
def wrong():
    return [{"x": 1}, {"z": 2}]
@task
def see(x):
    return x
@task
def fails():
    raise ValueError
with DAG("no_list"):
    see.expand(x=three())
with DAG("no_value"):
    see.expand(x=none())
with DAG("no_upstream"):
    see.expand(x=fails())
with DAG("wrong_key"):
    see.expand_kwargs(wrong())
with DAG("too_long"):
    see.expand(x=range(1001))
""",
    "rules.py": """
@task(retries=1, retry_delay=0)
def odd(n):
    if n % 2:
        raise ValueError(n)
    return n
with DAG("rules"):
    made = odd.expand(n=[0, 1, 2])
    for rule in ("all_success", "all_done", "one_failed", "one_success", "none_failed", "all_failed"):
        made >> EmptyOperator(task_id=rule, trigger_rule=rule)
""",
    "anew.py": """
@task
def length():
    with open(f"{GATES}/length") as stream:
        return list(range(int(stream.read())))
@task
def double(n):
    return n * 2
@task(trigger_rule="all_done")
def collect(values):
    return list(values)
with DAG("anew"):
    collect(double.expand(n=length()))
""",
    "limited.py": """
@task(max_active_tis_per_dagrun=2)
def wait(n):
    note("S")
    wait_at("limited")
    note("E")
with DAG("limited"):
    wait.expand(n=range(6))
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES, limits={"max_map_length": 1000}) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


@pytest.fixture(autouse=True)
def _rest(stage: Stage) -> Iterator[None]:
    yield
    stage.rest()


def instances(stage: Stage, run: int, task_id: str) -> list[tuple[int, str]]:
    """(map index, state), in order."""
    rows = stage.query(
        "select map_index, state from task_instance where dag_run_key = $1 and task_id = $2 order by map_index",
        run, task_id,
    )  # fmt: skip
    return [(row["map_index"], row["state"]) for row in rows]


def log(stage: Stage, run: int, task_id: str, map_index: int) -> str:
    return b"".join(stage.client.stream(f"/runs/{run}/tasks/{task_id}/logs", map_index=map_index)).decode()


@pytest.mark.parametrize(
    ("dag_id", "values"),
    [
        ("literals", [[0, "0", 1, None], [1, "1", "two", None], [2, "2", {"three": 3}, None]]),
        ("pairs", [[0, "0", ["a", 1], None], [1, "1", ["b", 2], None]]),
        ("outputs", [[0, "0", 10, "same"], [1, "1", "{{ ds }}", "same"], [2, "2", None, "same"]]),
        ("items", [[0, "0", ["a", 1], None], [1, "1", ["b", [2]], None]]),
        ("product", [
            [0, "0", 10, "p"], [1, "1", 10, "q"], [2, "2", "{{ ds }}", "p"], [3, "3", "{{ ds }}", "q"],
            [4, "4", None, "p"], [5, "5", None, "q"],
        ]),
        ("keywords", [[0, "0", 1, None], [1, "1", 2, 3]]),
        ("holes", [0, 40]),
        ("twice", [[0, "0", 0, None], [1, "1", 40, None]]),
        ("commands", ["0 one", "1 two"]),
    ],
)  # fmt: skip
def test_what_the_instances_get_and_what_is_read_below(stage: Stage, dag_id: str, values: list[Any]) -> None:
    run, state = stage.do(dag_id)
    assert state == "success", stage.why(run)
    assert stage.output(run, "collect") == values


def test_states_of_instances(stage: Stage) -> None:
    run, _ = stage.do("holes")
    assert instances(stage, run, "pick") == [
        (0, "success"), (1, "success"), (2, "skipped"), (3, "failed"), (4, "success"),
    ]  # fmt: skip
    assert "ValueError: three" in log(stage, run, "pick", 3)


def test_over_nothing_it_is_skipped(stage: Stage) -> None:
    run, state = stage.do("empty")
    assert state == "success"
    assert instances(stage, run, "see") == [(-1, "skipped")]
    assert stage.states(run) == {"see": "skipped", "collect": "success", "after": "success"}
    assert stage.output(run, "collect") == []


def test_values_are_pulled_in_templates_and_commands(stage: Stage) -> None:
    run, state = stage.do("pulled")
    assert state == "success", stage.log(run, "pulls")
    assert stage.output(run, "pulls") == [
        "[[0, '0', 1, None], [1, '1', 2, None]]", "[1, '1', 2, None]",
    ]  # fmt: skip
    run, state = stage.do("in_a_command")
    assert state == "success"
    assert stage.output(run, "prints") == '[[10, "{{ ds }}", null], [10, "{{ ds }}", null]]'


@pytest.mark.parametrize(
    ("dag_id", "found", "words"),
    [
        ("no_list", [(-1, "failed")], "three has returned neither a list nor a dict to map over"),
        ("no_value", [(-1, "failed")], "none has returned neither a list nor a dict to map over"),
        ("no_upstream", [(-1, "upstream_failed")], None),
        ("wrong_key", [(0, "success"), (1, "failed")], None),
        ("too_long", [(-1, "failed")], "it would have 1,001 instances; max_map_length is 1,000"),
    ],
)
def test_what_cannot_be_expanded_fails_and_says_why(
    stage: Stage, dag_id: str, found: list[tuple[int, str]], words: str | None
) -> None:
    run, state = stage.do(dag_id)
    assert state == "failed"
    assert instances(stage, run, "see") == found
    if words is not None:
        assert stage.task(run, "see")["reason"] == words
    if dag_id == "wrong_key":
        assert "unexpected keyword argument 'z'" in log(stage, run, "see", 1)


def test_trigger_rules_see_each_instance(stage: Stage) -> None:
    run, state = stage.do("rules")
    states = stage.states(run)
    states.pop("odd")
    assert (state, states) == ("failed", {
        "all_success": "upstream_failed", "all_done": "success", "one_failed": "success", "one_success": "success",
        "none_failed": "upstream_failed", "all_failed": "skipped",
    })  # fmt: skip
    tries = stage.query(
        "select try_number from task_instance where dag_run_key = $1 and task_id = 'odd' order by 1", run
    )
    assert [row["try_number"] for row in tries] == [1, 1, 2]


def test_so_many_instances_run_at_once_in_a_run(stage: Stage) -> None:
    run = stage.go("limited")
    stage.wait(lambda: len(stage.begun(run)) == 2, "two instances")
    stage.open_gate("limited")
    assert stage.end(run) == "success"
    assert (len(stage.begun(run)), stage.most_at_once(run)) == (6, 2)


@pytest.mark.parametrize(
    ("length", "found"),
    [
        (5, dict.fromkeys(range(5), "success")),
        (2, {0: "success", 1: "success", 2: "removed"}),
        (0, dict.fromkeys(range(3), "removed")),
    ],
)
def test_what_is_cleared_with_its_source_is_expanded_anew(stage: Stage, length: int, found: dict[int, str]) -> None:
    (stage.folder / "gates" / "length").write_text("3")
    run, state = stage.do("anew")
    assert (state, stage.output(run, "collect")) == ("success", [0, 2, 4])
    (stage.folder / "gates" / "length").write_text(str(length))
    assert stage.cli("task", "clear", run, "length", "--downstream", "--yes").json["tasks"] == 5
    assert stage.end(run) == "success"
    assert dict(instances(stage, run, "double")) == found
    assert stage.output(run, "collect") == [n * 2 for n in range(length)]


def test_single_instances_are_cleared_and_marked(stage: Stage) -> None:
    run, _ = stage.do("rules")
    cleared = stage.cli("task", "clear", run, "odd[1]", "odd[2]", "--yes")
    assert cleared.json["tasks"] == 2, cleared.err
    assert stage.end(run) == "failed"
    query = "select try_number from task_instance where dag_run_key = $1 and task_id = 'odd' order by map_index"
    assert [row["try_number"] for row in stage.query(query, run)] == [1, 4, 2]
    assert stage.cli("task", "mark", "success", run, "odd[1]", "--yes").code == 0
    stage.end(run)
    assert instances(stage, run, "odd") == [(0, "success"), (1, "success"), (2, "success")]
    wrong = stage.cli("task", "clear", run, "all_done[3]", "--yes")
    assert wrong.code != 0 and "'all_done' is not a mapped task" in wrong.error["message"]


WIDE = 20_000


def test_a_daemon_that_is_killed_in_the_middle_of_an_expansion_goes_on_where_it_was() -> None:
    dag = f"""
@task(pool="closed")
def never(n):
    pass
with DAG("wide"):
    never.expand(n=range({WIDE})) >> EmptyOperator(task_id="last")
"""
    with Stage({"wide.py": dag}, limits={"max_map_length": WIDE}) as stage:
        stage.start()
        stage.cli("pool", "set", "closed", "0")
        run = stage.go("wide")
        count = """
            select count(*) as n, count(*) filter (where map_index = -1) as open
            from task_instance where task_id = 'never'
        """

        def made() -> tuple[int, int]:
            (row,) = stage.query(count)
            return row["n"], row["open"]

        stage.wait(lambda: made()[0] > 500, "some instances")
        stage.kill_daemon()
        rows, is_open = made()
        assert (500 < rows < WIDE, is_open) == (True, 1), f"the expansion was over: {rows}"
        stage.start()
        stage.wait(lambda: made() == (WIDE, 0), "all instances", 120)
        (state,) = stage.query("select distinct state from task_instance where task_id = 'never'")
        assert state["state"] == "scheduled"
        stage.cli("run", "cancel", run)
        assert stage.end(run) == "failed"
        assert made() == (WIDE, 0)
        stage.assert_clean_log()
