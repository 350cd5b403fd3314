"""Plugins: code of the user's that accompanies workers, nannies and the scheduler.

`Client.register_plugin` brings them there. Worker and nanny plugins travel as pickles that the scheduler keeps and does
not open; a scheduler plugin is named by its import path in a module that the operator allowed (`dscheduler --preload`).
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distributed_core.errors import UsageError

UPLOADED = (".py", ".zip", ".egg")
SKIPPED_FOLDERS = (".git", ".github", ".pytest_cache", ".mypy_cache", "__pycache__", "tests", "docs")


class WorkerPlugin:
    """Accompanies each worker, also those that come later. Its methods may be coroutine functions.

    A subclass may also define `transition(key, start, finish)`. It is called when a task of the worker changes from the
    state `start` to `finish` (`ready`, `executing`, `memory`, `error`), a moment later and in a thread of its own.

    Attributes
    ----------
    name
        A plugin of the same name is replaced; by default it is made from the class.
    """

    name: str | None = None

    def setup(self, worker: Any) -> Any:
        """The plugin has come to `worker`, before its first task where the worker came later."""

    def teardown(self, worker: Any) -> Any:
        """The plugin was taken back, or the worker closes."""


class WorkerCallback(WorkerPlugin):
    """Calls a function on each worker as it comes.

    Parameters
    ----------
    setup
        Called without arguments, or with the worker where it has a parameter.
    """

    def __init__(self, setup: Callable[..., Any]) -> None:
        self.name = f"callback-{getattr(setup, '__qualname__', type(setup).__name__)}"
        self._setup = setup

    def setup(self, worker: Any) -> Any:
        wanted = inspect.signature(self._setup).parameters
        return self._setup(worker) if wanted else self._setup()


FORWARDED_LOGS = "forwarded-log-record"
"""The topic of log records on their way to clients."""


class ForwardLogging(WorkerPlugin):
    """Forwards what a worker logs to the clients that subscribed to it.

    Parameters
    ----------
    logger_name
        Which logger; None is the root.
    level
        What is less severe stays.
    """

    def __init__(self, logger_name: str | None, level: int) -> None:
        self.name: str = f"forward-logging-{logger_name or 'root'}"
        self._logger_name = logger_name
        self._level = level
        self._handler: logging.Handler | None = None

    def setup(self, worker: Any) -> None:
        class Forward(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                # What a record carries may not be sendable; its text always is.
                plain = {name: value for name, value in vars(record).items() if isinstance(value, str | int | float)}
                text = record.getMessage()
                if record.exc_info:
                    text += "\n" + logging.Formatter().formatException(record.exc_info)
                worker.log_event(FORWARDED_LOGS, {**plain, "msg": text, "args": None})

        self._handler = Forward(self._level)
        logging.getLogger(self._logger_name).addHandler(self._handler)

    def teardown(self, worker: Any) -> None:
        if self._handler is not None:
            logging.getLogger(self._logger_name).removeHandler(self._handler)
            self._handler = None


class NannyPlugin:
    """Accompanies each nanny, also those that come later: what must be done before a worker process starts.

    Attributes
    ----------
    name
        A plugin of the same name is replaced; by default it is made from the class.
    restart
        Whether worker processes that run already are started anew after `setup`.
    """

    name: str | None = None
    restart: bool = False

    def setup(self, nanny: Any) -> Any:
        """The plugin has come to `nanny`; `nanny.env` is the environment of the processes that it starts later."""

    def teardown(self, nanny: Any) -> Any:
        """The plugin was taken back, or the nanny closes."""


class SchedulerPlugin:
    """Accompanies the scheduler. Its methods may be coroutine functions, except `transition`.

    Since the scheduler opens nothing that was pickled, the class lives in a module that `dscheduler --preload` names,
    and is made there without arguments.

    Attributes
    ----------
    name
        A plugin of the same name is replaced; by default it is the import path of the class.
    """

    name: str | None = None

    def start(self, scheduler: Any) -> Any:
        """The plugin has come to the scheduler."""

    def close(self) -> Any:
        """The plugin was taken back, or the scheduler closes."""

    def add_worker(self, scheduler: Any, worker: str) -> Any:
        """The worker of this address has registered."""

    def remove_worker(self, scheduler: Any, worker: str) -> Any:
        """The worker of this address has gone."""

    def add_client(self, scheduler: Any, client: str) -> Any:
        """The client of this id has come."""

    def remove_client(self, scheduler: Any, client: str) -> Any:
        """The client of this id has gone."""

    def transition(self, key: str, start: str, finish: str) -> None:
        """A task changed its state: `released`, `waiting`, `queued`, `processing`, `memory`, `erred`, `forgotten`.

        It is called for every task, on the scheduler's loop: keep it short.
        """


class UploadFile(WorkerPlugin):
    """A module or an archive of modules for the workers; `Client.upload_file` makes it.

    Parameters
    ----------
    path
        A .py, .zip or .egg file.
    load
        Import it at once, anew where an older one was imported.

    Raises
    ------
    UsageError
        It is not there, of another kind, or broken.
    """

    def __init__(self, path: str | os.PathLike[str], load: bool = True) -> None:
        file = Path(path)
        if file.suffix not in UPLOADED:
            raise UsageError(f"{file} cannot be uploaded; it takes a file that ends in {', '.join(UPLOADED)}")
        try:
            self.data = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror}); check the path") from None
        if file.suffix == ".py":
            try:
                compile(self.data, str(file), "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                raise UsageError(f"{file} is no Python ({error}); correct it and upload it again") from None
        elif not _is_archive(self.data):
            raise UsageError(f"{file} is no archive; pack the modules again and upload it again")
        self.filename = file.name
        self.load = load
        self.name = f"upload-{file.name}"

    def setup(self, worker: Any) -> None:
        import tempfile

        folder = tempfile.mkdtemp(prefix="upload-", dir=worker.uploads_folder())
        target = os.path.join(folder, self.filename)
        with open(target, "wb") as file:
            file.write(self.data)
        module = self.filename.endswith(".py")
        sys.path.insert(0, folder if module else target)
        importlib.invalidate_caches()
        if not self.load:
            return
        names = [self.filename.removesuffix(".py")] if module else _top_names(target)
        for name in names:
            # Submodules of an older package must not stay: they belong to the older one.
            for loaded in [each for each in sys.modules if each == name or each.startswith(name + ".")]:
                if loaded != name or not module:
                    del sys.modules[loaded]
        for name in names:
            if name in sys.modules:
                importlib.reload(sys.modules[name])
            else:
                importlib.import_module(name)
        worker.forget_opened_functions()


def _is_archive(data: bytes) -> bool:
    import zipfile

    return zipfile.is_zipfile(io.BytesIO(data))


def _top_names(archive: str) -> list[str]:
    """Return the modules and packages that an archive has at its top."""
    import zipfile

    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    found: dict[str, None] = {}
    for name in names:
        first, _, rest = name.partition("/")
        if not rest and first.endswith(".py"):
            found[first.removesuffix(".py")] = None
        elif rest == "__init__.py":
            found[first] = None
    return list(found)


class UploadDirectory(NannyPlugin):
    """A folder for the workers' machines.

    Parameters
    ----------
    path
        The folder; it keeps its name there, in the nanny's `local_directory`, or else in a folder of its own.
    restart
        Start worker processes anew, so that they see it.
    update_path
        Let worker processes that start from now on import from it.
    skip_words
        Folders of these names are left out.

    Raises
    ------
    UsageError
        It is no folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        restart: bool = False,
        update_path: bool = False,
        skip_words: Iterable[str] = SKIPPED_FOLDERS,
    ) -> None:
        import zipfile

        folder = Path(path).resolve()
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; check the path")
        self.restart = restart
        self.update_path = update_path
        self.directory = folder.name
        self.name = f"upload-directory-{folder.name}"
        skipped = set(skip_words)
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(folder.rglob("*")):
                inner = file.relative_to(folder)
                if file.is_file() and not skipped.intersection(inner.parts):
                    packed.write(file, Path(folder.name) / inner)
        self.data = held.getvalue()

    def setup(self, nanny: Any) -> None:
        import shutil
        import tempfile
        import zipfile

        where = nanny.local_directory or nanny.uploads_folder()
        os.makedirs(where, exist_ok=True)
        target = os.path.join(where, self.directory)
        fresh = tempfile.mkdtemp(prefix="upload-", dir=where)
        with zipfile.ZipFile(io.BytesIO(self.data)) as packed:
            packed.extractall(fresh)
        shutil.rmtree(target, ignore_errors=True)
        made = os.path.join(fresh, self.directory)
        os.makedirs(made, exist_ok=True)
        os.replace(made, target)
        shutil.rmtree(fresh, ignore_errors=True)
        if self.update_path:
            paths = nanny.env.get("PYTHONPATH", os.environ.get("PYTHONPATH", "")).split(os.pathsep)
            if target not in paths:
                nanny.env["PYTHONPATH"] = os.pathsep.join([target, *filter(None, paths)])


class Environ(NannyPlugin):
    """Environment variables for worker processes.

    Parameters
    ----------
    environ
        Values by name.
    """

    restart = True

    def __init__(self, environ: Mapping[str, Any] | None = None) -> None:
        self.environ = {str(name): str(value) for name, value in (environ or {}).items()}

    def setup(self, nanny: Any) -> None:
        nanny.env.update(self.environ)

    def teardown(self, nanny: Any) -> None:
        for name, value in self.environ.items():
            if nanny.env.get(name) == value:
                del nanny.env[name]


class PipInstall(NannyPlugin):
    """Packages that pip installs on the workers' machines, into the Python that the workers run.

    Parameters
    ----------
    packages
        What pip takes: names, paths of wheels, requirements.
    pip_options
        Options of `pip install`.
    restart_workers
        Start worker processes anew, for packages that they had imported in another version.
    """

    def __init__(
        self, packages: Iterable[str], pip_options: Iterable[str] | None = None, restart_workers: bool = False
    ) -> None:
        self.packages = [packages] if isinstance(packages, str) else list(packages)
        self.pip_options = list(pip_options or ())
        self.restart = restart_workers
        if not self.packages:
            raise UsageError("PipInstall needs a package to install; name one")
        self.name = "pip-install-" + "-".join(sorted(Path(package).name for package in self.packages))

    def setup(self, nanny: Any) -> None:
        import fcntl
        import subprocess
        import tempfile

        argv = [sys.executable, "-m", "pip", "install", *self.pip_options, *self.packages]
        # Nannies of one machine share its packages, and two installations at once spoil each other.
        with open(os.path.join(tempfile.gettempdir(), f"distributed_core-pip-{os.getuid()}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise UsageError(f"pip could not install {', '.join(self.packages)} there: {said}")


def plugin_name(plugin: Any, name: str | None) -> str:
    """Return the name under which a plugin is known: what the caller says, its own, or one made from its class.

    Raises
    ------
    UsageError
        The name is no text, or empty.
    """
    chosen = name if name is not None else getattr(plugin, "name", None) or type(plugin).__qualname__
    if not isinstance(chosen, str) or not chosen:
        raise UsageError(f"the name of a plugin is text, not {chosen!r:.60}")
    return chosen
