"""Branching with Bash: a command that exits with 99 marks its task skipped, and what follows only it is skipped too.

                 ┌─▶ small ────────────────┐
    measure ─────┤                         ├──▶ publish ──▶ clean_up
                 └─▶ large ──▶ compress ───┘

By default the run takes the branch `small`; started with the conf {"size": "large"} it takes the other one:

    tickless run start branch_bash
    tickless run start branch_bash --conf '{"size": "large"}'

`compress` has the default trigger rule, all_success: it is skipped when `large` is. `publish` has both branches as
its upstream and must not be skipped with one of them: none_failed_min_one_success. `clean_up` runs whatever happened:
all_done. All tasks write to /tmp/tickless-examples-UID/branch_bash/RUN_ID/.
"""

from tickless import DAG, BashOperator, TriggerRule, chain

FOLDER = """
set -euo pipefail
folder="${TMPDIR:-/tmp}/tickless-examples-$(id -u)/$TICKLESS_DAG_ID/$TICKLESS_RUN_ID"
mkdir -p "$folder"
"""


def bash(task_id, command, **args):
    """A Bash task that begins by making the run's folder."""
    return BashOperator(task_id=task_id, bash_command=FOLDER + command, **args)


with DAG("branch_bash", tags=["example"], description="Two branches of Bash tasks; one is skipped"):
    # $TICKLESS_CONF is the conf of the run, a JSON object.
    measure = bash(
        "measure",
        """
        case "$TICKLESS_CONF" in *large*) size=large ;; *) size=small ;; esac
        echo "$size" > "$folder/size"
        echo "this run is $size"
        """,
    )
    small = bash("small", '[ "$(cat "$folder/size")" = small ] || exit 99; seq 10 > "$folder/numbers"')
    large = bash("large", '[ "$(cat "$folder/size")" = large ] || exit 99; seq 100000 > "$folder/numbers"')
    compress = bash("compress", 'gzip -f "$folder/numbers"')
    publish = bash(
        "publish",
        'ls "$folder"/numbers* > "$folder/published"; cat "$folder/published"',
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    )
    clean_up = bash("clean_up", 'rm -f "$folder/size"', trigger_rule="all_done")

    chain(measure, [small, large])
    large >> compress
    [small, compress] >> publish >> clean_up
