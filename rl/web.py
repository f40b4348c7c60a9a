"""`python -m rl.web`: runs in the browser, live: curves, pass@k, what looks wrong, and every completion.

python -m rl.web runs/            all runs below a folder
python -m rl.web runs/first       one run
"""

from pathlib import Path

from rl.core import cli

PORT = 8265


def main(argv: list[str]) -> None:
    purpose = __doc__.partition(": ")[2].partition("\n")[0]
    parser = cli.Parser(prog="python -m rl.web", description=purpose)
    text = "a run directory, or a folder with runs (default: %(default)s)"
    parser.add_argument("root", nargs="?", type=Path, default=Path("runs"), metavar="RUN|RUNS", help=text)
    text = "address to answer on; one beyond this machine wants a key (TALLY_API_KEY) (default: %(default)s)"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "port to answer on; 0 takes a free one (default: %(default)s)"
    parser.add_argument("--port", type=int, default=PORT, help=text)
    args = parser.parse_args(argv)
    from rl.page.serve import serve  # it loads what `--help` must not wait for

    serve(args.root, args.host, args.port)


if __name__ == "__main__":
    cli.run(main)
