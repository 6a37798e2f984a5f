"""What `import ctnet_ray` offers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress

import ctnet_ray as ct

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()


@pytest.mark.parametrize("name", ct.__all__)
def test_what_is_offered_is_there_and_documented(name: str) -> None:
    offered = getattr(ct, name)
    assert (offered.__doc__ or "").strip()
    assert re.search(rf"\b{name}\b", PAGE)


def test_what_is_not_offered_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        ct.train  # noqa: B018
    assert sorted(ct._MODULE_OF) == ct.__all__


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    script = (
        "import sys, ctnet_ray; print([name for name in ('ray', 'torch', 'mlflow') if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "[]\n"


def test_from_a_log_to_a_look_at_its_samples(tmp_path: Path) -> None:
    lines = [
        f"{3600 * at},u{at % 7},i{at % 5},{int(at % 3 == 0)},{'feed' if at % 4 else 'shop'}"
        for at in range(400)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["at,who,what,clicked,scene", *lines, ""]))
    (tmp_path / "map.yaml").write_text(
        "{time: {column: at, unit: s}, domain: {column: scene}, user: who, item: what, label: clicked}"
    )
    store = ct.SampleStore(str(tmp_path / "samples"))
    report = ct.write_table(
        [str(tmp_path / "log.csv")],
        ct.load_mapping(str(tmp_path / "map.yaml")),
        store,
        Progress(disable=True),
    )
    assert report.written["feed"].rows == 300
    schema = ct.load_schema(str(tmp_path / "samples/schema.yaml"))
    inspection = ct.inspect(ct.Inspected(store.root, schema, "feed", ("shop",)))
    assert {day.domain for day in inspection.days} == {"feed", "shop"}
    with pytest.raises(ct.CtnetError, match="no samples"):
        store.manifest("feed", store.days("feed")[-1].replace(year=2000))
