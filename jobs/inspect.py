"""Look at samples before training on them: is transfer worth trying, and what is to be mended first?

python -m jobs.inspect --store data/kuairand --source tab1
"""

from datetime import date

from jobs.command import run, typed


def main(
    store: str,
    schema: str | None = None,
    source: str | None = None,
    targets: list[str] | None = None,
    user: str | None = None,
    item: str | None = None,
    first_day: date | None = None,
    last_day: date | None = None,
    scored_days: int = 7,
    most_rows: int = 50_000,
    output: str = "runs/inspection",
) -> None:
    """Print an answer for each target and what to mend, and write a page with plots, and JSON.

    Whether transfer is worth trying is asked of logistic regressions on click rates of earlier days, with the
    target's alone and with the source's besides. Nothing is trained, recorded or changed.

    Args:
        store: Sample store.
        schema: Schema file; null: STORE/schema.yaml.
        source: Source domain; null: the one with the most rows.
        targets: Target domains, in a row; null: all others.
        user: Categorical feature that is the user; null: by its usual names (user, user_id, uid).
        item: Categorical feature that is the item; null: by its usual names (item, item_id, video_id ...).
        first_day: First day (YYYY-MM-DD); null: the first there is.
        last_day: Last day; null: the newest.
        scored_days: Last days that are scored, each by what was learned on the days before.
        most_rows: Rows of a day that are read for overlap, groups and scores; days are shuffled. Missing
            values, drift and new ids are of all rows.
        output: Local folder for the page (HTML, Markdown, PNG, JSON).
    """
    from ctnet_ray import schema as schemas
    from ctnet_ray import storage
    from ctnet_ray.inspection import page
    from ctnet_ray.inspection.inspecting import Inspected, inspect

    inspected = Inspected(
        storage.absolute(store),
        schemas.load(schema or storage.join(store, "schema.yaml")),
        source,
        tuple(targets or ()),
        user,
        item,
        first_day or date.min,
        last_day or date.max,
        scored_days,
        most_rows,
    )
    page.show(inspect(inspected), storage.absolute(output), typed("jobs.inspect"))


if __name__ == "__main__":
    run(main, __doc__ or "", several=("targets",))
