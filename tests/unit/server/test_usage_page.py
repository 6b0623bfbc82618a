"""The page of tokens and money in a real browser."""

import pytest

from smallpress.server.meter import Rates

EVIL = "<img src=x onerror=window.hit=1>"


def test_it_shows_what_was_used_and_what_a_million_tokens_cost_beside_others(start, visit, accessible):
    expect = pytest.importorskip("playwright.sync_api").expect
    served = start("ok", rates=Rates(out=4.38))
    with visit(served.url, "/page/usage") as page:
        expect(page.locator("#rows")).to_contain_text("Nothing has been asked yet.")
        page.evaluate(
            """fetch("/v1/chat/completions", {method: "POST", headers: {"Content-Type": "application/json"},
                body: JSON.stringify({model: "tiny", messages: [{role: "user", content: "q"}]})})"""
        )
        page.reload()
        cells = page.locator("#rows tbody td")
        expect(cells.first).to_have_text("local")
        assert cells.all_inner_texts()[1:3] == ["tiny", "1"] and cells.nth(5).inner_text() == "3"
        accessible(page)
        names = {"key": EVIL, "model": EVIL}
        usage = page.evaluate("fetch('/usage').then((answer) => answer.json())")
        usage["rows"] = [row | names for row in usage["rows"]]
        usage["models"] = {EVIL: {"completion_tokens_per_second": 1e6 / 36}}
        page.route(f"{served.url}/usage", lambda route: route.fulfill(json=usage))
        page.fill("#hour", "")
        page.reload()
        expect(page.locator("#bars tr.own th")).to_contain_text("2.0 times dearer than deepseek-reasoner")
        assert page.locator("#bars tr").all_inner_texts()[-1].startswith("o1, January 2025")
        page.fill("#hour", "100")
        expect(page.locator("#bars tr.own .price")).to_have_text("$5.38")
        assert page.locator("main img").count() == 0
