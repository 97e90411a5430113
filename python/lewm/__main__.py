"""``python -m lewm``: the command line, and ``python -m lewm --cmake-dir`` for build systems."""

from lewm.cli import main

raise SystemExit(main())
