"""A corpus and a new model opened for pretraining, the loop with its way back, and what is written at the end."""

from collections.abc import Mapping
from pathlib import Path

import torch

from smallpress.corpus.fill_middle import Marks
from smallpress.corpus.rows import Row, Rows
from smallpress.corpus.shards import Corpus
from smallpress.lowbit.linear8 import Arithmetic, use
from smallpress.lowbit.product8 import int8, simulated
from smallpress.model.config import ModelConfig
from smallpress.model.transformer import Transformer, init_weights
from smallpress.optim.compute_dtype import compute_dtype
from smallpress.parallel.checkpoint import read_whole
from smallpress.parallel.passes import Passes
from smallpress.parallel.ranks import ALONE, Ranks
from smallpress.parallel.weights import spread
from smallpress.run.atomic import verify_folder
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.loop import Loop
from smallpress.tokenizer.made import FIM
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.train.next_tokens import NextTokens
from smallpress.train.pretrain_settings import OF_THE_CORPUS, PretrainSettings
from smallpress.train.pretrainer import Feed, Pretrainer
from smallpress.weights.export import save_hf_folder
from smallpress.weights.unborn import UnbornModel


def settled(settings: PretrainSettings, corpus: Corpus, ranks: Ranks = ALONE) -> PretrainSettings:
    """With the vocabulary of the corpus, where the recipe names no larger one, and the dtype that goes with its
    arithmetic: where this is written down, a resumed run computes alike, though another may be faster by then."""
    kind = settings.arithmetic
    in_8_bits = kind in ("int8", "fp8")
    dtype = ranks.told(str(compute_dtype(settings.dtype)).removeprefix("torch.")) if in_8_bits else kind
    settings = settings.model_copy(update={"dtype": dtype})
    size = settings.shape.vocab_size
    if size == OF_THE_CORPUS:
        return settings.model_copy(
            update={"shape": settings.shape.model_copy(update={"vocab_size": corpus.vocab_size})}
        )
    if size < corpus.vocab_size:
        what = f"shape.vocab_size={size} is below the {corpus.vocab_size} tokens of {corpus.folder}"
        raise UserError(what, "leave it out, and it is the corpus's")
    return settings


def new_model(config: ModelConfig, std: float, seed: int, arithmetic: str = "float32") -> Transformer:
    """Drawn by the seed, its linear layers and experts computing in `arithmetic`; embedding, head, routers and norms
    never do so in 8 bits."""
    model = Transformer(config)
    init_weights(model, std, seed)
    if arithmetic == "int8":
        product = int8()
    elif arithmetic == "fp8":
        product = simulated("fp8")
    else:
        return model
    for part in (model.layers, model.mtp):
        use(Arithmetic.all_in(product), part)
    return model


def open_pretrainer(settings: PretrainSettings, corpus: Corpus, ranks: Ranks = ALONE) -> Pretrainer:
    """`settings` are settled. Raises UserError where the corpus is too small, or has no tokens for holes; or where the
    model cannot be spread over `ranks`."""
    model = new_model(settings.shape, settings.init_std, settings.seed, settings.arithmetic)
    model.recompute = settings.recompute
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    weights = spread(model, dtype, ranks, weight_decay=settings.weight_decay, optimizer=settings.optimizer)
    objective = NextTokens(
        Passes(weights, ranks),
        settings.micro_batch_tokens,
        corpus.bytes_of,
        settings.mask_documents,
        alpha=settings.balance.alpha,
    )
    feed = Feed(Rows(corpus.train, settings.seq_len, settings.seed), _marks(settings, corpus), settings.fim_rate)
    digest = f"{corpus.train.digest}{corpus.held_out.digest}"
    return Pretrainer(settings, weights, objective, feed, _held_out(settings, corpus), digest, ranks)


def _held_out(settings: PretrainSettings, corpus: Corpus) -> list[Row]:
    """As many rows as `eval_tokens` need and the corpus has, the same ones in every run."""
    rows = Rows(corpus.held_out, settings.seq_len, seed=0)
    return [rows.row(k) for k in range(min(len(rows), -(-settings.eval_tokens // settings.seq_len)))]


def _marks(settings: PretrainSettings, corpus: Corpus) -> Marks | None:
    if settings.fim_rate == 0:
        return None
    tokenizer = Tokenizer.from_folder(corpus.tokenizer)
    ids = [tokenizer.id_of(text) for text in FIM]
    if None in ids:
        what = f"fim_rate={settings.fim_rate}: the tokenizer of {corpus.folder} lacks {', '.join(FIM)}"
        raise UserError(what, "set fim_rate=0, or make the corpus with a tokenizer that has them")
    return Marks(*(id for id in ids if id is not None))


class PretrainLoop(Loop):
    trainer: Pretrainer

    def __init__(self, folder: RunFolder, trainer: Pretrainer, used: float = 0.0):
        super().__init__(folder, trainer, trainer.measure, used, told=trainer.ranks.told)

    def after_step(self, metrics: Mapping[str, float]) -> None:
        if metrics["rolled_back"]:
            way_back = self.told(self._way_back())
            self.trainer.roll_back(None if way_back is None else Path(way_back))

    def _way_back(self) -> str | None:
        """The last checkpoint, or one further back for each return that did not help; None: there is none yet.

        Raises UserError where it is damaged."""
        known = self.folder.checkpoints.all()
        if not known:
            return None
        path = known[-min(len(known), self.trainer.n_stuck + 1)].path
        verify_folder(path)
        return str(path)

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        trainer, found = self.trainer, []
        if metrics["skipped"]:
            found.append(f"skipped (no number, or a spike in loss or gradient): {trainer.n_skipped} so far")
        if metrics["rolled_back"]:
            n = trainer.settings.roll_back_after
            found.append(f"{n} skipped in a row: back to the weights of the last checkpoint, on with the next data")
        return found


def export(trainer: Pretrainer, corpus: Corpus, folder: Path, checkpoint: Path) -> None:
    """The model as a Hugging Face folder with the corpus's tokenizer, MTP modules among it; whole or not at all.

    Of a run of many processes from its last `checkpoint`, by one of them.
    """
    config, n_tokens = trainer.settings.shape, round(trainer.ramp.share(trainer.n_done) * trainer.ramp.n_tokens)
    dtype = "float32" if trainer.settings.arithmetic == "float32" else "bfloat16"
    card = {"summary": f"Pretrained from random weights on {n_tokens:,} tokens."}
    weights = trainer.exported if trainer.ranks.alone else read_whole(checkpoint, trainer.exported_as)
    save_hf_folder(folder, weights, UnbornModel(config, corpus.tokenizer), dtype, card)
