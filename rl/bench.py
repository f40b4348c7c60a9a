"""`python -m rl.bench`: how fast each part of the service is on this machine, and a run from end to end.

Sampling is measured beside vLLM's own offline engine, the learner against the machine's rate of matrix products, with
--against-trl both and a whole run beside TRL's GRPOTrainer, always in turn. The settings are those of rl.train; without
any, the starter model makes steps of 512 samples of at most 32 tokens.
"""

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rl.core import cli
from rl.core.errors import UsageError

USUAL = ("end_to_end", "sampling", "learner", "publishing", "buffer", "verifier")
PARTS = (*USUAL, "growth")
SETTINGS = {"batch": 512, "buffer": 2048, "max_tokens": 32, "steps": 30}
"""Where the user names none."""
FEWEST_STEPS = 10


def main(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    parts = _parts(args.parts)
    if args.rounds < 1:
        raise UsageError(f"--rounds {args.rounds} measures nothing", fix="take 1 or more")
    values, sources = cli.given(args)
    defaults = {name: value for name, value in SETTINGS.items() if name not in values}
    config = cli.completed(defaults | values, dict.fromkeys(defaults, "rl.bench") | sources).config
    if config.steps < FEWEST_STEPS:
        raise UsageError(f"--steps {config.steps} are too few to measure", fix=f"take {FEWEST_STEPS} or more")
    from rl.measure.bench import Bench  # these load what `--help` must not wait for
    from rl.present.bench import lines

    if args.folder and args.folder.exists():
        raise UsageError(f"{args.folder} exists", fix="take another --folder")
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(config, cli.changed(config.model_dump(mode="json")), Path(folder), args.rounds)
        result: dict[str, Any] = bench.measure(parts, against_trl=args.against_trl)
    print("\n".join(lines(result)))
    if args.json:
        print(json.dumps(result))


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m rl.bench",
        usage="python -m rl.bench [--parts PART,…] [--against-trl] [--json] [any flag of rl.train below]",
        description=(__doc__ or "").partition(": ")[2],
    )
    parser.add_argument(
        "--parts",
        default=",".join(USUAL),
        help="which to measure; growth, a quarter of an hour and more: tokens/s at 4 times the buffer, 4 times the "
        "problems and 10 times the --steps (default: %(default)s)",
    )
    parser.add_argument("--against-trl", action="store_true", help="measure TRL's GRPOTrainer on the same work, too")
    parser.add_argument("--rounds", type=int, default=5, help="of each pair of sides (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where runs and logs go and stay (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object, in the last line")
    cli.add_config_flags(parser)
    return parser


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in PARTS:
            raise UsageError(f"--parts: there is no part {part!r}", fix=f"take of {', '.join(PARTS)}")
    return parts


if __name__ == "__main__":
    cli.run(main)
