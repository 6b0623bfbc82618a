"""The chat page in a real browser, over an engine that says what it is told to say."""

import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
THOUGHT = "<think>two and two</think>\n\n**four** and `code`"
ATTACKS = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg onload=window.hit=1>",
    "<svg><script>window.hit=1</script></svg>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<iframe src=javascript:parent.hit=1>",
    "<body onload=window.hit=1>",
    "<details open ontoggle=window.hit=1>",
    "<a href=javascript:window.hit=1>x</a>",
    "[x](javascript:window.hit=1)",
    "[x](JaVaScRiPt:window.hit=1)",
    "[x](java\tscript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x](data:text/html,<script>window.hit=1</script>)",
    "[x](vbscript:window.hit=1)",
    "![x](http://attacker.example/pixel.png)",
    "![x](//attacker.example/pixel.png)",
    "![x](javascript:window.hit=1)",
    "![x](data:image/svg+xml,<svg onload=window.hit=1>)",
    "<http://attacker.example/>",
    "<link rel=stylesheet href=http://attacker.example/x.css>",
    "<meta http-equiv=refresh content='0;url=http://attacker.example/'>",
    "<base href=http://attacker.example/>",
    "<form action=http://attacker.example/><input type=submit autofocus></form>",
    "<object data=http://attacker.example/x>",
    "<embed src=http://attacker.example/x>",
    "<video src=http://attacker.example/x onerror=window.hit=1>",
    "<audio src=x onerror=window.hit=1>",
    "<style>@import 'http://attacker.example/x.css';</style>",
    "<math><mtext><script>window.hit=1</script></mtext></math>",
    "$\\href{javascript:window.hit=1}{x}$",
    "\\(\\url{javascript:window.hit=1}\\)",
    "$$\\includegraphics{http://attacker.example/x}$$",
    "```html\n<script>window.hit=1</script>\n```",
    "```<img src=x onerror=window.hit=1>\nx\n```",
    '```" onmouseover="window.hit=1\nx\n```',
    "`<script>window.hit=1</script>`",
    "| <img src=x onerror=window.hit=1> | b |\n|-|-|\n| <script>window.hit=1</script> | d |",
    "> <script>window.hit=1</script>",
    "- <img src=x onerror=window.hit=1>",
    "# <img src=x onerror=window.hit=1>",
    "[<img src=x onerror=window.hit=1>](https://a.b)",
    '[x](https://a.b" onclick="window.hit=1)',
    "[x](https://a.b 'onclick=window.hit=1')",
    "**<script>window.hit=1</script>**",
    "<!--><script>window.hit=1</script>-->",
    "</div></article><script>window.hit=1</script>",
    "{{constructor.constructor('window.hit=1')()}}",
    "<input autofocus onfocus=window.hit=1>",
    "<template><script>window.hit=1</script></template>",
]


def test_the_pages_own_logic_in_node():
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    done = subprocess.run([node, ROOT / "tests/browser/markdown.test.mjs"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_pages_files_say_what_they_allow(start):
    served = start("x", keys=[("me", "a-key-of-enough-characters")])
    for path in ("/", "/page/page_app.js", "/page/page.css"):
        with urllib.request.urlopen(served.url + path, timeout=120) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/page/", "/page/app.py", "/page/..%2fapp.py", "/page/page.py", "/page/%00"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(served.url + path, timeout=120)
        with caught.value as error:
            assert error.code == 404


def expect(locator):
    return pytest.importorskip("playwright.sync_api").expect(locator)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a server's page; at the end nothing was logged as an error and no other host was asked."""

    @contextmanager
    def opened(served, key=None):
        context = browser.new_context(locale="en-US")
        if key is not None:
            context.add_init_script(f"sessionStorage.setItem('smallpress.key', '{key}')")
        page = context.new_page()
        page.set_default_timeout(60_000)
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(served.url)
        expect(page.locator("#model")).to_have_value("tiny", timeout=60_000)
        try:
            yield page
        finally:
            elsewhere = [url for url in asked if not url.startswith((served.url, "data:", "blob:"))]
            context.close()
        assert not elsewhere and not faults, (elsewhere, faults)

    return opened


def ask(page, text):
    page.fill("#question", text)
    page.press("#question", "Enter")
    page.wait_for_selector("#send:not([hidden])")


def test_a_conversation_with_thinking_folds_it_and_outlives_a_reload(start, visit):
    served = start(THOUGHT)
    with visit(served) as page:
        ask(page, "What is 2 + 2?")
        article = page.locator("article.assistant")
        assert article.locator("strong").inner_text() == "four" and article.locator("code").inner_text() == "code"
        assert article.locator("details").get_attribute("open") is None
        assert "13 tokens" in article.locator("summary").inner_text()
        assert "left in context" in article.inner_text()
        page.reload()
        page.wait_for_selector("article.assistant strong")
        assert page.locator("article.user .text").inner_text() == "What is 2 + 2?"


def test_thinking_is_open_while_it_comes_and_stop_keeps_what_came(start, visit, wait_until):
    served = start("<think>" + "so " * 1300)
    served.engine.longest = 60
    with visit(served) as page:
        page.fill("#question", "Think!")
        page.press("#question", "Enter")
        page.wait_for_selector("details.thinking[open] .words")
        page.click("#stop")
        page.wait_for_selector("#send:not([hidden])")
        assert page.locator("article.assistant .words").text_content().startswith("so ")
        assert "stopped" in page.locator("article.assistant").inner_text()
    wait_until(lambda: not served.engine.live)


def test_edit_and_regenerate_ask_again(start, visit):
    served = start(lambda prompt: "five" if "2 + 3" in prompt else "four")
    with visit(served) as page:
        ask(page, "2 + 2?")
        page.get_by_role("button", name="Regenerate").click()
        expect(page.locator("article.assistant .acts")).to_have_count(1, timeout=60_000)
        assert len(served.engine.requests) == 2
        page.locator("article.user").get_by_role("button", name="Edit").click()
        page.fill("article.user textarea", "2 + 3?")
        page.press("article.user textarea", "Enter")
        expect(page.locator("article.assistant .text")).to_have_text("five", timeout=60_000)
        page.wait_for_selector("#send:not([hidden])")
        assert page.locator("article").count() == 2


def test_settings_language_theme_and_keys(start, visit):
    key = "a-key-of-enough-characters"
    served = start("ok", keys=[("me", key)])
    with visit(served, key) as page:
        page.click("#settings summary")
        page.fill("#system", "Be brief.")
        page.fill("#temperature", "0")
        page.fill("#max_tokens", "9")
        ask(page, "Hello")
        params = served.engine.requests[-1].params
        assert (params.temperature, params.max_tokens) == (0.0, 9)
        prompt = served.engine.tokenizer.decode(served.engine.requests[-1].prompt_ids)
        assert "Be brief." in prompt
        page.click("#language")
        assert page.locator("#send").inner_text() == "发送" and page.locator("html").get_attribute("lang") == "zh"
        page.click("#theme")
        assert "dark" in page.locator("html").get_attribute("class")


def test_what_a_model_writes_runs_nothing_and_asks_nobody(start, visit):
    served = start(lambda prompt: ATTACKS[int(prompt.rpartition("attack ")[2].partition("<")[0])])
    with visit(served) as page:
        for i in range(len(ATTACKS)):
            page.click("#new")
            ask(page, f"attack {i}")
            assert page.evaluate("window.hit") is None, ATTACKS[i]
            links = page.eval_on_selector_all("#log a", "all => all.map(a => a.protocol)")
            assert set(links) <= {"http:", "https:", "mailto:"}, ATTACKS[i]
            assert page.locator("#log script, #log img, #log iframe, #log svg, #log style, #log form").count() == 0
    assert len(ATTACKS) == 50
