"""A real server on a real socket over an engine that says what it is told to say: no model, no torch."""

import shutil
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from smallpress.engine.engine import Stats
from smallpress.engine.request import Completion, Piece, Request, SamplingParams
from smallpress.server.gate import LOOPBACK, Keys
from smallpress.server.hosted import Hosted, Models
from smallpress.server.limits import Limits
from smallpress.server.listen import NOTHING, bound_socket, make_server
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.adapter import Adapter

EOS = 1
CAPACITY = 4096
THINKS = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"


@dataclass
class Live:
    request: Request
    ids: list[int]
    given: list[int] = field(default_factory=list)


class ScriptedEngine:
    """Answers a prompt's text with `answer` of it, one token a step for each request."""

    capacity = CAPACITY

    def __init__(self, answer: Callable[[str], str], tokenizer: Tokenizer):
        self.answer, self.tokenizer = answer, tokenizer
        self.requests: list[Request] = []
        self.adapters: list[Adapter] = []
        self.live: dict[int, Live] = {}
        self.fault: BaseException | None = None
        self.may_step = threading.Event()
        self.may_step.set()
        self.longest: int | None = None
        """Tokens after which an answer goes no further until it is cancelled."""

    @property
    def busy(self) -> bool:
        return bool(self.live)

    def is_running(self, request_id: int) -> bool:
        return request_id in self.live

    def submit(self, request: Request) -> int:
        self.requests.append(request)
        prompt = self.tokenizer.decode(request.prompt_ids, skip_special=False)
        ids = [*self.tokenizer.encode(self.answer(prompt), special=True), EOS]
        self.live[len(self.requests)] = Live(request, ids)
        return len(self.requests)

    def step(self) -> list[Piece]:
        assert self.may_step.wait(30)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        going = [(i, live) for i, live in self.live.items() if self.longest is None or len(live.given) < self.longest]
        if not going:
            threading.Event().wait(0.005)
        return [self._next(request_id, live) for request_id, live in going]

    def _next(self, request_id: int, live: Live) -> Piece:
        id = live.ids[len(live.given) % len(live.ids)]
        live.given.append(id)
        stopped = live.request.stopper.push(id) if live.request.stopper is not None else False
        stopped = stopped or id in live.request.stop_ids
        reason = "stop" if stopped else "length" if len(live.given) >= live.request.params.max_tokens else None
        top = tuple((id, -0.5) for _ in range(live.request.params.n_top))
        return Piece(request_id, id, -0.5, self._finish(request_id, reason) if reason else None, top)

    def _finish(self, request_id: int, reason: str) -> Completion:
        live = self.live.pop(request_id)
        return Completion(tuple(live.given), (-0.5,) * len(live.given), reason, len(live.request.prompt_ids), 3)

    def cancel(self, request_id: int) -> Completion | None:
        return self._finish(request_id, "cancelled") if request_id in self.live else None

    def save(self) -> bool:
        return False

    def add_adapter(self, adapter: Adapter) -> int:
        self.adapters.append(adapter)
        return len(self.adapters)

    def stats(self) -> Stats:
        return Stats(1, 2, 3, 4, 0, 0, 0, 0.5, len(self.live), 0, len(self.live), 10)


@dataclass
class Served:
    url: str
    engine: ScriptedEngine
    models: Models
    stop: Callable[[], None]
    clients: list = field(default_factory=list)

    def client(self, key: str = "none"):
        openai = pytest.importorskip("openai")
        self.clients.append(openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30))
        return self.clients[-1]


@pytest.fixture
def start(byte_tokenizer, chatml):
    """Starts servers that end with the test; `answer` is a text or a function of the prompt's text.

    With an `engine` that one answers instead.
    """
    ends: list[Callable[[], None]] = []

    def begin(
        answer,
        template: str = chatml,
        keys=(),
        limits: Limits | None = None,
        wait: bool = True,
        slow=None,
        form="chat",
        names=("tiny",),
        accounts=NOTHING,
        engine=None,
        adapters=(),
    ) -> Served:
        tokenizer = byte_tokenizer(template)
        scripted = {name: ScriptedEngine(answer if callable(answer) else lambda _: answer, tokenizer) for name in names}
        engines = scripted | ({names[0]: engine} if engine else {})
        engine = engines[names[0]]
        params = SamplingParams(temperature=0.6)

        def load(name: str) -> ScriptedEngine:
            if slow is not None:
                assert slow.wait(30)
            return engines[name]

        hosted = [Hosted(name, tokenizer, params, CAPACITY, partial(load, name), form=form) for name in names]
        hosted += [hosted[0].adapted(name, f"runs/{name}", Adapter({}, {})) for name in adapters]
        models = Models(hosted)
        sock = bound_socket("127.0.0.1", 0, Keys(keys))
        server, _ = make_server(models, Keys(keys), limits or Limits(), LOOPBACK, 2, accounts)
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()

        def end() -> None:
            for client in served.clients:
                client.close()
            if isinstance(engine, ScriptedEngine):
                engine.may_step.set()
            server.should_exit = True
            thread.join(20)
            sock.close()
            assert not thread.is_alive()

        ends.append(end)

        def stop() -> None:
            server.should_exit = True

        served = Served(f"http://127.0.0.1:{sock.getsockname()[1]}", engine, models, stop)
        if wait:
            wait_until(lambda: models.state == "ok")
        return served

    yield begin
    for end in ends:
        end()


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look again every hundredth of a second."""
    pause = threading.Event()
    for _ in range(int(seconds * 100)):
        with suppress(AttributeError):
            if holds():
                return
        pause.wait(0.01)
    raise AssertionError("it did not come to hold")


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def tokenizer(byte_tokenizer) -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def templates(chatml) -> dict[str, str]:
    return {"plain": chatml, "opened": chatml + THINKS}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WATCHES = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@pytest.fixture(scope="session")
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
    """Opens a page; at the end no error was logged, the policy was not broken and no other host was asked."""

    @contextmanager
    def opened(url, path="/", key=None, network_faults=False, **context):
        context = browser.new_context(locale="en-US", **context)
        context.add_init_script(WATCHES)
        if key is not None:
            context.add_init_script(f"sessionStorage.setItem('smallpress.key', '{key}')")
        page = context.new_page()
        page.set_default_timeout(60_000)
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(url + path)
        try:
            yield page
            faults += page.evaluate("window.violations")
            faults += [hit] if (hit := page.evaluate("window.hit")) else []
        finally:
            elsewhere = [url_ for url_ in asked if not url_.startswith((url, "data:", "blob:"))]
            context.close()
        if network_faults:
            faults = [fault for fault in faults if "Failed to load resource" not in fault]
        assert not elsewhere and not faults, (elsewhere, faults)

    return opened


@pytest.fixture
def accessible():
    """Asserts that axe-core finds nothing serious on a page as it is now."""
    axe = files(pytest.importorskip("axe_playwright_python")).joinpath("axe.min.js").read_text("utf-8")

    def check(page) -> None:
        page.evaluate(axe + "; undefined")
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, serious

    return check
