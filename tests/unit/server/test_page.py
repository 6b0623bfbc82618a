"""The chat page in a real browser, over an engine that says what it is told to say."""

import json
import shutil
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from smallpress.server.meter import Rates

ROOT = Path(__file__).parents[3]
THOUGHT = "<think>two and two</think>\n\n**four** and `code`, $\\frac{1}{2}$"
RICH = THOUGHT + "\n\n```python\ndef f(): return 1 # " + "long " * 40 + "\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n> q\n\n# h"
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
    "$$\\begin{array}{<img src=x onerror=window.hit=1>}x\\end{array}$$",
    "$\\text{<script>window.hit=1</script>}$",
    "\\[\\html@{<svg onload=window.hit=1>}\\]",
    "$\\style{background:url(http://attacker.example/x)}{x}$",
    "```js\n`<script>window.hit=1</script>`\n```",
    '```python\n"""<img src=x onerror=window.hit=1>\n```',
]


HARMLESS = """
 ARTICLE DIV SPAN P A B BUTTON DETAILS SUMMARY PRE CODE STRONG EM DEL UL OL LI TABLE THEAD TBODY TR TH TD BLOCKQUOTE HR
 H2 H3 H4 H5 H6 SECTION OPTION MATH MROW MI MO MN MTEXT MSPACE MFRAC MSUP MSUB MTABLE MTR MTD """


def test_the_pages_own_logic_in_node():
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    done = subprocess.run([node, ROOT / "tests/browser/markdown.test.mjs"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_pages_files_say_what_they_allow(start):
    served = start("x", keys=[("me", "a-key-of-enough-characters")])
    for path in ("/", "/page/page_app.js", "/page/page.css", "/page/usage"):
        with urllib.request.urlopen(served.url + path, timeout=120) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/page/", "/page/app.py", "/page/..%2fapp.py", "/page/page.py", "/page/%00", "/page/nothing"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(served.url + path, timeout=120)
        with caught.value as error:
            assert error.code == 404


def expect(locator):
    return pytest.importorskip("playwright.sync_api").expect(locator)


def ask(page, text):
    page.wait_for_selector("#model option", state="attached")
    page.fill("#question", text)
    page.press("#question", "Enter")
    page.wait_for_selector("#send:not([hidden])")


def test_a_conversation_folds_its_thinking_shows_what_it_cost_and_outlives_reload_and_export(start, visit, tmp_path):
    served = start(THOUGHT, rates=Rates(out=1000.0))
    with visit(served.url) as page:
        ask(page, "What is 2 + 2?")
        article = page.locator("article.assistant")
        assert article.locator("strong").inner_text() == "four" and article.locator("code").inner_text() == "code"
        assert article.locator("mfrac").text_content() == "12"
        assert article.locator("details").get_attribute("open") is None
        assert "13 tokens" in article.locator("summary").inner_text()
        n_tokens = len(served.engine.tokenizer.encode(THOUGHT, special=True)) + 1
        said = article.locator(".facts").inner_text()
        assert f"{n_tokens} tokens" in said and f"${n_tokens / 1000:.2g}" in said
        assert "left in context" in page.inner_text("#room")
        page.reload()
        page.wait_for_selector("article.assistant strong")
        assert page.locator("article.user .text").inner_text() == "What is 2 + 2?"
        with page.expect_download() as export:
            page.click("#export")
        export.value.save_as(tmp_path / "chats.json")
        (tmp_path / "bad.json").write_text('[{"messages": [{"role": "evil"}]}]')
        page.set_input_files("#file", tmp_path / "bad.json")
        expect(page.locator("#status")).to_have_text("This file holds no chats")
        page.get_by_role("button", name="Delete: What is 2 + 2?").click()
        assert page.locator("article").count() == 0
        page.set_input_files("#file", tmp_path / "chats.json")
        page.get_by_role("button", name="What is 2 + 2?", exact=True).click()
        assert page.locator("article.assistant strong").inner_text() == "four"


def test_thinking_is_open_while_it_comes_and_stop_keeps_what_came(start, visit, wait_until):
    served = start("<think>" + "so " * 1300)
    served.engine.longest = 60
    with visit(served.url) as page:
        page.wait_for_selector("#model option", state="attached")
        page.fill("#question", "Think!")
        page.press("#question", "Enter")
        page.wait_for_selector("details.thinking[open] .words p")
        page.click("#stop")
        page.wait_for_selector("#send:not([hidden])")
        assert page.locator("article.assistant .words").text_content().startswith("so ")
        assert "stopped" in page.locator("article.assistant").inner_text()
    wait_until(lambda: not served.engine.live)


def test_thinking_that_never_ends_and_an_answer_that_breaks_off_are_told(start, visit):
    served = start("<think>hm, hm")
    with visit(served.url, network_faults=True) as page:
        ask(page, "Think!")
        article = page.locator("article.assistant")
        assert article.locator(".words").text_content() == "hm, hm" and "(no answer)" in article.inner_text()
        half = {"choices": [{"delta": {"content": "half an "}, "finish_reason": None}]}
        body = f"data: {json.dumps(half)}\n\n"
        page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
        ask(page, "And now?")
        assert "half an" in article.last.inner_text() and "connection was lost" in article.last.inner_text()
        page.unroute("**/v1/chat/completions")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        article.last.get_by_role("button", name="Regenerate").click()
        expect(article.last.locator(".branches")).to_contain_text("2/2")
        assert "connection was lost" in article.last.inner_text()


def test_edit_and_regenerate_keep_the_other_branches(start, visit):
    served = start(lambda prompt: f"{'five' if '2 + 3' in prompt else 'four'} {len(served.engine.requests)}")
    with visit(served.url) as page:
        ask(page, "2 + 2?")
        answer = page.locator("article.assistant .text")
        page.get_by_role("button", name="Regenerate").click()
        expect(answer).to_have_text("four 2")
        page.get_by_role("button", name="Earlier version").click()
        expect(answer).to_have_text("four 1")
        page.press("#question", "ArrowUp")
        page.fill("article.user textarea", "2 + 3?")
        page.press("article.user textarea", "Enter")
        expect(answer).to_have_text("five 3")
        page.wait_for_selector("#send:not([hidden])")
        assert page.locator("article").count() == 2 and "2/2" in page.locator("article.user").inner_text()
        page.reload()
        page.get_by_role("button", name="Earlier version").click()
        expect(answer).to_have_text("four 2")
        assert served.engine.tokenizer.decode(served.engine.requests[-1].prompt_ids).count("2 + ") == 1


def test_settings_models_language_theme_and_keys(start, visit):
    key = "a-key-of-enough-characters"
    served = start("ok", keys=[("me", key)], names=("small", "large"))
    with visit(served.url, key=key) as page:
        page.wait_for_selector("#model option", state="attached")
        page.click("#settings summary")
        page.fill("#system", "Be brief.")
        for name, value in (("temperature", "0"), ("max_tokens", "9"), ("top_k", "5"), ("min_p", "0.1"), ("seed", "7")):
            page.fill(f"#{name}", value)
        page.fill("#thinking_budget", "4")
        with page.expect_request("**/v1/chat/completions") as asked:
            ask(page, "Hello")
        assert asked.value.post_data_json["thinking_budget"] == 4 and "top_p" not in asked.value.post_data_json
        request = served.engine.requests[-1]
        params = request.params
        assert (params.temperature, params.max_tokens, params.top_k, params.min_p) == (0.0, 9, 5, 0.1)
        assert "Be brief." in served.engine.tokenizer.decode(request.prompt_ids)
        page.select_option("#model", "large")
        ask(page, "Hello, large")
        assert [one.split(" · ")[0] for one in page.locator(".facts").all_inner_texts()[:2]] == ["small", "large"]
        page.click("#language")
        assert page.get_by_role("button", name="发送").is_visible()
        assert page.locator("html").get_attribute("lang") == "zh"
        page.click("#theme")
        assert "dark" in page.locator("html").get_attribute("class")


def test_the_page_waits_for_a_model_and_asks_for_a_key(start, visit):
    gate = threading.Event()
    served = start("ok", keys=[("me", "a-key-of-enough-characters")], slow=gate, wait=False)
    with visit(served.url, network_faults=True) as page:
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "a-key-of-enough-characters")
        page.press("#key", "Tab")
        expect(page.locator("#status")).to_have_text("tiny is loading")
        gate.set()
        expect(page.locator("#status")).to_have_text("")
        ask(page, "Hello")
        assert page.locator("article.assistant .text").inner_text() == "ok"


@pytest.mark.parametrize(("scheme", "size"), [("light", (1200, 800)), ("dark", (390, 780))])
def test_axe_finds_nothing_serious(start, visit, accessible, scheme, size):
    served = start(RICH)
    with visit(served.url, color_scheme=scheme, viewport={"width": size[0], "height": size[1]}) as page:
        accessible(page)
        ask(page, "All of it")
        page.get_by_role("button", name="Regenerate").click()
        page.get_by_role("button", name="Earlier version").wait_for()
        page.click(".thinking summary")
        accessible(page)
        page.click("#settings summary")
        accessible(page)


def harmless(page):
    """Nothing on the page is more than text, and links go where links may go."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("#log, #log *, #chats *, #model *")].map((element) => ({
            tag: element.tagName.toUpperCase(), attributes: element.getAttributeNames(), link: element.protocol ?? null,
        }))"""
    )
    assert {one["tag"] for one in found} <= set(HARMLESS.split())
    attributes = {name for one in found for name in one["attributes"]}
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc", "action")]
    assert {one["link"] for one in found if one["link"]} <= {"http:", "https:", "mailto:"}


def test_what_a_model_writes_runs_nothing_and_asks_nobody(start, visit):
    half = len(ATTACKS) // 2
    texts = ["\n\n".join(part) for part in (ATTACKS[:half], ATTACKS[half:])]
    served = start(lambda prompt: f"<think>{texts['second' in prompt]}</think>{texts['second' in prompt]}")
    with visit(served.url) as page:
        for question in ("first", "second"):
            page.click("#new")
            ask(page, question)
            harmless(page)
            assert len(page.locator("#log").text_content()) > len(texts[0])


def test_what_an_import_holds_runs_nothing_and_asks_nobody(start, visit, tmp_path):
    assert len(ATTACKS) >= 50
    served = start("ok")
    turns = [
        turn
        for attack in ATTACKS
        for turn in (
            {"role": "user", "content": attack},
            {"role": "assistant", "content": attack, "thinking": attack, "model": attack, "error": attack},
        )
    ]
    titles = [{"id": attack, "messages": [{"role": "user", "content": attack}]} for attack in ATTACKS]
    names = [f"{attack} [x](javascript:window.hit=1)" for attack in ATTACKS]
    (tmp_path / "chats.json").write_text(json.dumps([{"id": "all", "messages": turns}, *titles]))
    with visit(served.url) as page:
        models = {"data": [{"id": name, "max_model_len": 9} for name in names]}
        page.route("**/v1/models", lambda route: route.fulfill(json=models))
        page.set_input_files("#file", tmp_path / "chats.json")
        page.locator("#chats .open").first.click()
        assert page.locator("#log article").count() == 2 * len(ATTACKS)
        page.reload()
        expect(page.locator("#model option")).to_have_count(len(ATTACKS))
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        harmless(page)
