"""DAGs for houses in which things are killed: every shape that the engine treats differently, and how each must end.

Tasks that must succeed have retries to spare: a killed process is a failed try like any other.
"""

from __future__ import annotations

from tests.support.ledger import Plan

_DEFAULTS = '{"retries": 50, "retry_delay": 0.05}'

# A diamond of Python and bash; values travel along its Python side.
DIAMOND = f"""
with DAG("diamond", default_args={_DEFAULTS}):
    top = python("top", lambda: [1, 2, 3])
    left = python("left", lambda got: sum(got), top)
    right = bash("right", "nap 0.05; echo right")
    other = bash("other", "nap 0.02")
    bottom = python("bottom", lambda a, b: a * 10 + len(b), left, right)
    top >> [right, other]
    other >> bottom
"""

# The first two tries fail by themselves; one task skips, and what follows does so with it.
FLAKY = f"""
with DAG("flaky", default_args={_DEFAULTS}):
    fails = bash("fails", '[ "$TICKLESS_TRY_NUMBER" -gt 2 ] || exit 1')
    raises = python("raises", lambda: 1 / (int(os.environ["TICKLESS_TRY_NUMBER"]) > 1) and "up")
    skips = bash("skips", "note E; exit 99")
    skipped = bash("skipped", ":")
    last = python("last", lambda got: got + "!", raises, trigger_rule="none_failed_min_one_success")
    fails >> [raises, skips]
    skips >> skipped >> last
"""

# More tasks than a pool of two slots and the run's concurrency let through at once.
POOLED = f"""
with DAG("pooled", default_args={_DEFAULTS}):
    begin = EmptyOperator(task_id="begin")
    end = EmptyOperator(task_id="end")
    for i in range(4):
        begin >> bash(f"narrow{{i}}", "nap 0.03", pool="narrow") >> end
    begin >> python("wide", lambda: time.sleep(0.02), pool="narrow", pool_slots=2) >> end
    for i in range(3):
        begin >> bash(f"free{{i}}", "nap 0.03") >> end
"""

# Fails for good, and cleans up after itself.
BROKEN = """
with DAG("broken", default_args={"retry_delay": 0.05}):
    works = python("works", lambda: None, retries=50)
    breaks = bash("breaks", "exit 3", retries=1)
    never = python("never", lambda: None)
    cleans = bash("cleans", ":", trigger_rule="all_done", retries=50)
    works >> breaks >> never >> cleans
    verdict = python("verdict", lambda: None)
    breaks >> verdict
"""

DAGS = {"diamond.py": DIAMOND, "flaky.py": FLAKY, "pooled.py": POOLED, "broken.py": BROKEN}
POOLS = {"narrow": 2}

_POOLED_TASKS = [*(f"narrow{i}" for i in range(4)), "wide", *(f"free{i}" for i in range(3))]

PLANS = {
    "diamond": Plan(
        run_state="success",
        tasks=dict.fromkeys(("top", "left", "right", "other", "bottom"), "success"),
        edges=[
            ("top", "left"),
            ("top", "right"),
            ("top", "other"),
            ("left", "bottom"),
            ("right", "bottom"),
            ("other", "bottom"),
        ],
        outputs={"left": "6", "bottom": "65"},
    ),
    "flaky": Plan(
        run_state="success",
        tasks={"fails": "success", "raises": "success", "skips": "skipped", "skipped": "skipped", "last": "success"},
        edges=[("fails", "raises"), ("fails", "skips"), ("raises", "last")],
        outputs={"last": '"up!"'},
    ),
    "pooled": Plan(run_state="success", tasks=dict.fromkeys(("begin", "end", *_POOLED_TASKS), "success")),
    "broken": Plan(
        run_state="failed",
        tasks={
            "works": "success",
            "breaks": "failed",
            "never": "upstream_failed",
            "cleans": "success",
            "verdict": "upstream_failed",
        },
        edges=[("works", "breaks")],
    ),
}

# Tasks that run until the house's go file exists: to be found running by whoever kills something.
HELD_TASKS = 12
HELD = """
with DAG("held", default_args={"retries": 0}):
    for i in range(6):
        python(f"py{i}", lambda i=i: wait_for_go() or f"held {i}")
        bash(f"sh{i}", "wait_for_go; echo held")
"""
HELD_PLAN = Plan(
    run_state="success",
    tasks={f"{kind}{i}": "success" for kind in ("py", "sh") for i in range(6)},
    outputs={f"py{i}": f'"held {i}"' for i in range(6)} | {f"sh{i}": '"held"' for i in range(6)},
)
