import os
import shutil

import keras
import pytest
from oracles.tensorboard import DRAWS, nalu, serve, train

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ALONE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: set CHROMIUM to its path"),
    pytest.mark.skipif(not DRAWS, reason="PyTorch keeps no name scopes to draw from"),
]


@pytest.fixture(scope="module")
def page():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def show(page, url, tab):
    page.goto("about:blank")
    page.goto(f"{url}/#{tab}")


def wait_for(page, label):
    page.locator("g.nodes text", has_text=label).first.wait_for()


def labels(page):
    """The words at the nodes, without those that only hovering shows."""
    words = """texts => texts.map(text =>
        [...text.childNodes].filter(node => node.nodeType == Node.TEXT_NODE)
                            .map(node => node.data).join(""))"""
    return set(page.locator("g.nodes text").evaluate_all(words))


def test_a_person_sees_the_equation_at_first_sight(page, tmp_path):
    model = keras.Sequential([keras.Input((2,), name="x"), nalu()])
    train(model, tmp_path / "logs", epochs=2, config={"seed": 7})
    with serve(tmp_path / "logs") as url:
        show(page, url, "graphs")
        wait_for(page, "log_space")
        page.screenshot(path=tmp_path / "graphs.png")
        equation = {"nac", "add_sub", "log_space", "gate", "mix", "W_hat", "M_hat", "G"}
        assert labels(page) >= equation | {"x", "output"}
        page.get_by_text("Main Graph").wait_for()
        assert page.get_by_text("Malformed").count() == 0
        assert page.get_by_text("failed").count() == 0

        show(page, url, "images")
        picture = page.locator("tf-image-loader img").first
        picture.wait_for()
        assert page.get_by_text("tag: nalu/kernel/image").is_visible()
        loaded = "picture => picture.naturalWidth == 260"
        page.wait_for_function(loaded, arg=picture.element_handle())

        show(page, url, "scalars&tagFilter=nalu")
        page.get_by_text("tag: nalu/kernel/x1_y0").wait_for()

        show(page, url, "text")
        page.locator("td", has_text="steps per epoch").wait_for()
        assert page.locator("td", has_text="seed").is_visible()
        assert page.locator("td", has_text="W_hat (2, 1)").is_visible()


def test_a_layer_among_others_opens_on_the_equation(page, tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), nalu(2), keras.layers.Dense(1, name="dense")]
    )
    train(model, tmp_path / "logs")
    with serve(tmp_path / "logs") as url:
        show(page, url, "graphs")
        box = page.locator('g.node[data-name="nalu"] > g.nodeshape')
        wait_for(page, "dense")
        assert labels(page) >= {"nalu", "dense", "input", "output"}
        assert not labels(page) & {"nac", "mix"}
        box.dispatch_event("dblclick")
        wait_for(page, "log_space")
        page.screenshot(path=tmp_path / "graphs.png")
        assert labels(page) >= {"nac", "add_sub", "gate", "mix", "W_hat", "M_hat", "G"}
