"""The process behind `verifier.MathVerify`: a line of JSON in, a line of JSON out. Run as a file, alone."""

import json
import os
import resource
import sys

GIGABYTE = 1 << 30


REFUSED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "socket.")


def refuse(event: str, _: object) -> None:
    """An audit hook: reading a formula starts no program and opens no connection."""
    if event.startswith(REFUSED):
        os._exit(1)


def main() -> None:
    from math_verify import LatexExtractionConfig, parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTE, GIGABYTE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    config = [LatexExtractionConfig()]

    def read(text: str) -> list[object]:
        return parse(f"\\boxed{{{text}}}", config, parsing_timeout=None, raise_on_error=True)

    verify(read(r"\sin\frac{\pi}{6}"), read(r"\sqrt{2}"), timeout_seconds=None)  # the first one builds the grammar
    sys.addaudithook(refuse)
    say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            same = verify(read(asked["reference"]), read(asked["answer"]), timeout_seconds=None, raise_on_error=True)
            say({"same": bool(same)})
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            say({"error": type(error).__name__})


def say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
