"""`python -m node_runner`: the program `node-run`, for where its folder is not on the path."""

from node_runner.cli.main import main


if __name__ == "__main__":
    main()
