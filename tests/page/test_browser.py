"""The page in a real browser: what is selected there is what its code selects, and a zoo's names run nothing."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_pages import external
from resealed import reseal

from zoo_datasets.page import page
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
MOST_MS = 60_000  # ends what hangs; no promise about time
Open = Callable[..., Any]
CHOSEN = "() => { const {zoo, state} = weightzoo; return zoo.ids.filter((_, m) => state.selected[m]) }"
HOSTILE = "</script><img src=x onerror='window.hurt=1'><script>window.hurt=1</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page from the disk; at the end nothing was said on its console, and nothing else was asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1280, theme: str = "light", touch: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=touch, accept_downloads=True
        )
        contexts.append(context)
        found = context.new_page()
        found.set_default_timeout(MOST_MS)
        found.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        found.on("pageerror", lambda e: said.append(str(e)))
        found.on("request", lambda r: asked.append(r.url))
        found.goto(path.as_uri())
        until(found, "window.weightzoo !== undefined")
        return found

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def tiny_page(tiny_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "zoo.html"
    page.write(open_zoo(tiny_zoo), out)
    return out


def until(tab: Any, condition: str) -> None:
    """Wait for a condition of the page. Playwright's own way evaluates text inside it, which the page's policy forbids."""
    for _ in range(MOST_MS // 50):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def drag(tab: Any, place: Any, path: list[tuple[float, float]]) -> None:
    """Press, move and let go at shares of an element's box."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    for point in points[1:]:
        tab.mouse.move(*point, steps=3)
    tab.mouse.up()


def codes(tab: Any) -> list[str]:
    until(tab, "!weightzoo.state.isMoving")
    return [tab.locator("pre").nth(i).text_content() for i in (0, 1)]


def test_brushes_lasso_and_levels_select_what_their_code_selects(
    tiny_page: Path, tiny_zoo: Path, opened: Open, environment: dict[str, str]
) -> None:
    tab = opened(tiny_page)
    tab.get_by_label("Color by", exact=True).last.select_option("activation")
    selections: list[tuple[list[str], list[str]]] = []

    def keep() -> None:
        selections.append((tab.evaluate(CHOSEN), codes(tab)))

    keep()  # all
    drag(tab, tab.locator("[data-axis=test_accuracy]"), [(0.5, 0.05), (0.5, 0.55)])
    keep()
    tab.get_by_role("button", name="tanh").click()  # the legend
    keep()
    tab.get_by_role("button", name="Clear", exact=True).click()
    tab.get_by_role("button", name="Lasso", exact=True).click()
    drag(tab, tab.locator("canvas.plane"), [(0.02, 0.02), (0.55, 0.02), (0.55, 0.98), (0.02, 0.98), (0.02, 0.1)])
    keep()
    drag(tab, tab.locator("[data-axis=subset]"), [(0.5, 0.02), (0.5, 0.3)])
    keep()
    sizes = [len(ids) for ids, _ in selections]
    assert sizes[0] == 16
    assert 0 < sizes[2] < sizes[1] < 16
    assert 0 < sizes[4] < sizes[3] < 16

    script = "import json\nfound = []\n"
    for _, (ours, theirs) in selections:
        script += (
            f"{ours}found.append(chosen.column('model_id').to_pylist())\n{theirs}found.append(chosen['model_id'][:])\n"
        )
    script += "print(json.dumps(found))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tiny_zoo.parents[1], env=environment, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for (wanted, _), ours, theirs in zip(selections, found[::2], found[1::2], strict=True):
        assert sorted(ours) == sorted(theirs) == sorted(wanted)


def test_infinity_is_a_level_and_no_missing_value(tmp_path: Path, opened: Open) -> None:
    """And where a column holds NaN and null, there are no levels, so that no code says one for the other."""
    inf, nan = float("inf"), float("nan")
    zoo = external(tmp_path / "z", {"lr": [0.1, inf, None, -inf, 0.1, inf], "decay": [0.1, nan, None, 0.2, 0.1, nan]})
    out = tmp_path / "zoo.html"
    page.write(zoo, out)
    tab = opened(out)
    tab.get_by_label("Color by", exact=True).last.select_option("lr")
    levels = [tab.locator(".legend button").nth(i).text_content() for i in range(tab.locator(".legend button").count())]
    assert [re.sub(r"\s.*", "", level.strip()) for level in levels] == ["−∞1", "0.12", "∞2", "none1"]
    for level, code, rows in ((2, 'lr=float("inf")', [1, 5]), (-1, "lr=None", [2]), (0, 'lr=float("-inf")', [3])):
        tab.evaluate(f"weightzoo.state.brush('lr', {{levels: new Set([{level}])}})")
        chosen = tab.evaluate(CHOSEN)
        assert chosen == [f"model-{i:05}" for i in rows]
        assert f"select({code})" in codes(tab)[0]
        value = {2: inf, -1: None, 0: -inf}[level]
        assert zoo.final().select(lr=value).column("model_id").to_pylist() == chosen
    assert tab.evaluate("weightzoo.state.zoo.byName.get('decay').steps === undefined")


def test_a_network_opens_with_neighbors_twins_and_filters_by_keyboard(tiny_page: Path, opened: Open) -> None:
    tab = opened(tiny_page)
    tab.locator("canvas.plane").focus()
    tab.keyboard.press("ArrowRight")
    first = tab.evaluate("weightzoo.state.focus")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    assert first >= 0
    card = tab.locator("#card")
    assert card.get_by_text("Nearest in weight space").is_visible()
    assert card.get_by_text("Twins along subset").is_visible()
    painted = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size > 8"
    until(tab, f"({painted})(document.querySelector('canvas.filters'))")
    before = tab.evaluate("weightzoo.state.focus")
    card.locator(".others button").first.click()
    assert tab.evaluate("weightzoo.state.focus") != before
    tab.get_by_role("button", name="subset", exact=True).first.focus()
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog")
    dialog.get_by_role("checkbox").first.check()
    dialog.get_by_role("button", name="Select").press("Enter")
    assert len(tab.evaluate(CHOSEN)) == 8
    tab.locator("canvas.plane").press("Escape")
    assert len(tab.evaluate(CHOSEN)) == 16


def test_csv_and_copied_code_are_of_the_selection(tiny_page: Path, opened: Open, zoo: Zoo) -> None:
    tab = opened(tiny_page)
    tab.evaluate("weightzoo.state.brush('activation', {levels: new Set([0])})")
    with tab.expect_download() as coming:
        tab.get_by_role("button", name="Download csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(coming.value.path()).read_text(encoding="utf-8"))))
    stored = {r["model_id"]: r for r in zoo.models.to_pylist() if r["activation"] == "relu"}
    assert {r["model_id"]: float(r["test_accuracy"]) for r in rows} == {
        i: r["test_accuracy"] for i, r in stored.items()
    }
    assert {r["subset"] for r in rows} == {"full", "frac=0.5"}
    assert 'activation="relu"' in codes(tab)[0]
    tab.locator("#copy-select").click()
    tab.get_by_role("button", name="Copied").wait_for()


RECORDED = """() => { window.drawn = []; const p = CanvasRenderingContext2D.prototype, { stroke, fillRect } = p;
  p.stroke = function (...a) { drawn.push([this.canvas.className, this.lineWidth, this.strokeStyle]); return stroke.apply(this, a); };
  p.fillRect = function (...a) { drawn.push([this.canvas.className, 0, this.fillStyle]); return fillRect.apply(this, a); } }"""


def test_any_color_has_mean_curves_and_levels_beyond_the_colors_are_gray(tmp_path: Path, opened: Open) -> None:
    kinds = [f"k{i}" for i in range(9)] * 4
    accuracy = [0.1 + i * 0.02 for i in range(36)]  # of each level in four bins
    page.write(
        external(tmp_path / "z", {"kind": kinds}, metrics={"test_accuracy": accuracy}, steps=2), tmp_path / "zoo.html"
    )
    tab = opened(tmp_path / "zoo.html")
    tab.evaluate(RECORDED)

    def means(color: str) -> set[str]:
        tab.evaluate(f"drawn.length = 0; weightzoo.state.setColor({color!r})")
        until(tab, "drawn.some(([where, width]) => where === 'chart' && width === 1)")  # the whole chart is one task
        return {style for where, width, style in tab.evaluate("drawn") if (where, width) == ("chart", 2.5)}

    tab.get_by_label("Color by", exact=True).last.select_option("kind")
    assert [len(means(color)) for color in ("", "test_accuracy", "kind")] == [1, 1, 7]
    tab.evaluate("drawn.length = 0; weightzoo.state.tell('select')")
    until(tab, "drawn.some(([where, width]) => where === 'chart tall' && width === 0)")
    bars = collections.Counter(
        style for where, width, style in tab.evaluate("drawn") if (where, width) == ("chart tall", 0)
    )
    faint, soft = (tab.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{n}').trim()") for n in ("--faint", "--soft"))  # fmt: skip
    del bars[faint]  # what is not selected, below the bars
    of_others = bars.pop(soft)
    assert len(bars) == 7
    assert {of_others} == {2 * n for n in bars.values()}


@pytest.mark.parametrize(("width", "theme"), [(380, "dark"), (380, "light"), (1280, "dark")])
def test_a_narrow_page_and_a_dark_one_fit(tiny_page: Path, opened: Open, width: int, theme: str) -> None:
    tab = opened(tiny_page, width=width, theme=theme, touch=width < 500)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll("button, select, input, canvas:not([aria-hidden]), pre")]
             .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    contrast = tab.evaluate(
        """() => { const light = (c) => { const v = c.match(/[0-9a-f]{2}/gi).map((h) => parseInt(h, 16) / 255)
               .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
             return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2] };
             const value = (n) => light(getComputedStyle(document.documentElement).getPropertyValue(n).trim());
             const ratio = (a, b) => { const [x, y] = [value(a), value(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) };
             return ["--ink", "--soft", "--accent", "--warn"].flatMap((t) => ["--paper", "--raised"].map((b) => ratio(t, b))) }"""
    )
    assert min(contrast) >= 4.5
    if width < 500:
        box = tab.locator("canvas.plane").bounding_box()
        tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_names_with_markup_are_text_and_run_nothing(tmp_path: Path, opened: Open) -> None:
    names = [f"{HOSTILE}{i}" for i in range(8)]
    zoo = external(
        tmp_path / "z", {HOSTILE: names[::-1], "=1+1": ["=cmd", '"quoted"'] * 4, "x" * 1000: [0.1, 0.2] * 4},
        metrics={"test_accuracy": [0.1, float("nan"), 0.3, None, 0.5, 0.6, 0.7, 0.8]},
        texts={"grid.yaml": f"zoo: {HOSTILE}\n"}, ids=names,
    )  # fmt: skip
    out = tmp_path / "zoo.html"
    page.write(open_zoo(reseal(zoo.root, zoo="someone/<b>theirs")), out)  # a name that no writer seals
    tab = opened(out)
    tab.evaluate("weightzoo.state.setFocus(3)")
    tab.evaluate("weightzoo.state.brush('=1+1', {levels: new Set([0])})")
    tab.get_by_label("Color by", exact=True).last.select_option(HOSTILE)
    tab.locator("canvas.plane").hover()
    assert tab.evaluate("window.hurt") is None
    assert tab.locator("#app img, #app script").count() == 0
    assert tab.get_by_role("heading", level=1).text_content() == "someone/<b>theirs"
    assert 'select(**{"=1+1": "=cmd"})' in codes(tab)[0]


@pytest.mark.parametrize(
    "kind", ["one model", "no metrics", "no common map", "two hundred axes", "ten thousand levels"]
)
def test_what_cannot_be_drawn_is_said_and_the_rest_is_there(kind: str, tmp_path: Path, opened: Open) -> None:
    accuracy = {"test_accuracy": [0.1, 0.2, 0.3, 0.4]}
    lr = [0.1, 0.2, 0.3, 0.4]
    made: dict[str, Any] = {
        "one model": lambda out: external(out, {"lr": [0.1]}),
        "no metrics": lambda out: external(out, {"lr": lr}),
        "no common map": lambda out: external(out, {"lr": lr}, metrics=accuracy, widths=[4, 6, 8, 10]),
        "two hundred axes": lambda out: external(out, {f"a{k}": lr for k in range(200)}, metrics=accuracy),
        "ten thousand levels": lambda out: external(
            out, {"name": [f"level {i}" for i in range(10_000)]}, widths=[2] * 10_000
        ),
    }
    out = tmp_path / "zoo.html"
    page.write(made[kind](tmp_path / "z"), out)
    tab = opened(out)
    tab.evaluate("weightzoo.state.setFocus(0)")
    assert tab.get_by_role("heading", name="Selected networks").is_visible()
    if kind == "two hundred axes":
        assert tab.locator("[data-axis]").count() <= 10
    if kind in ("one model", "no metrics", "no common map"):
        assert tab.get_by_role("heading", name="What is missing here").is_visible()
    assert os.path.getsize(out) < 3_000_000
