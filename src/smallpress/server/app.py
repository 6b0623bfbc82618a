"""The application: its paths behind the gate, its models loading while it already answers /health."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp

from smallpress import __version__
from smallpress.run.errors import UserError
from smallpress.server.about import about_routes
from smallpress.server.chat import chat_routes
from smallpress.server.completions import completion_routes
from smallpress.server.errors import handle_errors
from smallpress.server.gate import Gate, Keys
from smallpress.server.hosted import Models
from smallpress.server.ledger import Ledger
from smallpress.server.limits import Limits
from smallpress.server.meter import Accounts, Meter
from smallpress.server.ollama import ollama_routes
from smallpress.server.openapi import describe
from smallpress.server.page import page_routes
from smallpress.server.responses import response_routes
from smallpress.server.tokens import token_routes
from smallpress.server.usage import usage_routes


@dataclass
class Loading:
    """Where a model could not be loaded, `fault` says why and `stop` ends the server."""

    stop: Callable[[], None] = lambda: None
    fault: UserError | MemoryError | OSError | None = None


def make_app(
    models: Models, keys: Keys, limits: Limits, hosts: frozenset[str], loading: Loading, accounts: Accounts
) -> ASGIApp:
    """The ASGI application; `hosts` as for Gate. UserError: the folder of the accounts cannot be used."""
    ledger = None if accounts.state is None else Ledger(accounts.state)
    meter = Meter(accounts.rates, accounts.by_model, ledger, models.busy_seconds, models.base_of())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_load(models, limits, loading))
        yield
        task.cancel()
        await asyncio.to_thread(models.close)
        if ledger is not None:
            ledger.close()

    app = FastAPI(title="smallpress", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    handle_errors(app)
    app.include_router(about_routes(models))
    app.include_router(chat_routes(models, meter, limits))
    app.include_router(completion_routes(models, meter, limits))
    app.include_router(response_routes(models, meter, limits))
    app.include_router(ollama_routes(models, meter, limits))
    app.include_router(token_routes(models))
    app.include_router(page_routes())
    app.include_router(usage_routes(models, meter))
    describe(app)
    return Gate(app, keys, limits, hosts)


async def _load(models: Models, limits: Limits, loading: Loading) -> None:
    """One after the other, each in a thread, so that /health answers meanwhile."""
    for model in models:
        if model.parent is not None:
            continue
        try:
            engine = await asyncio.to_thread(model.load)
        except (UserError, MemoryError, OSError) as error:
            loading.fault = error
            loading.stop()
            return
        models.start(model, engine, limits.live)
    print("ready", file=sys.stderr, flush=True)
