"""`python -m blobflow`: the same as the `blobflow` command."""

from blobflow.cli import main

if __name__ == "__main__":
    main()
