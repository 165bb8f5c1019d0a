"""Dynamic task mapping: as many tasks as there is work, known only when the run is there.

    list_texts ──▶ count[0] count[1] count[2] … ──▶ totals
                   greet[0] … greet[3]      (the cross product of two lists)

`list_texts` finds out what there is to do; `count` gets one instance for each of it, with a log, tries and a state of
its own; `totals` gets what all of them returned, in order. Start it with another pattern, and there are fewer:

    tickless run start mapped_words --wait
    tickless run start mapped_words --conf '{"pattern": "h*.txt"}' --wait
    tickless run start mapped_words --conf '{"pattern": "nothing"}' --wait     # count is skipped
"""

from pathlib import Path

from tickless import BashOperator, dag, task

TEXTS = Path(__file__).parent / "data" / "texts"


@task
def list_texts(params):
    """The list that is mapped over: one instance of count for each name in it."""
    return sorted(path.name for path in TEXTS.glob(params["pattern"]))


@task(retries=1)
def count(name, unit):
    text = (TEXTS / name).read_text()
    return {"name": name, unit: len(text.split() if unit == "words" else text.splitlines())}


@task(trigger_rule="none_failed")
def totals(counts):
    """`counts` is read from the daemon as it is looped over: one value per instance, in order of their indexes."""
    return {one["name"]: one["words"] for one in counts}


@dag(tags=["example"], description="One task instance per text file", params={"pattern": "*.txt"})
def mapped_words():
    totals(count.partial(unit="words").expand(name=list_texts()))
    # Over two literals: 2 x 2 instances, the last list varying fastest.
    BashOperator.partial(task_id="greet").expand(
        bash_command=["echo hello $WHO", "echo goodbye $WHO"],
        env=[{"WHO": "harbour"}, {"WHO": "orchard"}],
    )


mapped_words()
