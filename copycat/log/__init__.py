"""Entries at rest: the native segmented log, its public face, and the verified fake."""

from importlib.machinery import PathFinder

__all__: list[str] = []

if PathFinder.find_spec("copycat.log._native", __path__) is None:
    import platform

    raise ImportError(
        f"copycat's extension is not built for this Python ({platform.python_version()}, "
        f"{platform.machine()}) in {__path__[0]}; run `make build` in a clone, or "
        "`pip install .` to install it",
        name="copycat.log._native",
    )
