"""`python -m rl.doctor`: whether a run with these flags can start here: each thing it needs is ok, or has a fix."""

from pathlib import Path

from rl.core import cli


def main(argv: list[str]) -> int:
    parser = cli.Parser(
        prog="python -m rl.doctor",
        usage="python -m rl.doctor [the flags that rl.train would be given]",
        description=__doc__.partition(": ")[2],
    )
    parser.add_argument("--run-dir", type=Path, default=Path("runs"), metavar="DIR", help="where its files would go")
    parser.add_argument("--port", type=int, default=0, help="of its rollout server (default: a free one)")
    cli.add_config_flags(parser)
    args = parser.parse_args(argv)
    config = cli.resolve(args).config
    from rl.launch import doctor  # it loads what `--help` must not wait for

    return doctor.report(doctor.findings(config, argv, args.run_dir, args.port))


if __name__ == "__main__":
    cli.run(main)
