"""The page of a look at samples, in headless Chromium, as wide as a desktop and as a phone."""

from pathlib import Path

import pytest

from ctnet_ray import schema as schemas
from ctnet_ray.inspection import page
from ctnet_ray.inspection.inspecting import Inspected, inspect
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.synthetic import write_schema, write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from tests.integration.browser import CHROMIUM, browser_page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")
def test_the_page_fits_a_desktop_and_a_phone_and_loads_nothing(tmp_path: Path) -> None:
    config = WorldConfig(days=5, source_rows=2000, target_rows=300, users=60, evergreen_items=80, new_items=5)
    write_world(SampleStore(str(tmp_path / "samples")), config)
    write_schema(f"{tmp_path}/samples/schema.yaml", config)
    schema = schemas.load(f"{tmp_path}/samples/schema.yaml")
    page.write(inspect(Inspected(str(tmp_path / "samples"), schema)), tmp_path / "look")
    address, asked = f"file://{tmp_path}/look/index.html", []
    with browser_page(asked) as shown:
        for width in (1600, 390):
            shown.set_viewport_size({"width": width, "height": 900})
            shown.goto(address)
            assert shown.get_by_role("heading", name="feed to channel").is_visible()
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            plot = shown.locator("svg").first.bounding_box()
            assert plot
            assert 0 < plot["width"] <= width
    assert set(asked) == {address}
