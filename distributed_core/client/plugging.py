"""Code of the user's beside tasks: functions on workers as such, plugins, uploaded files, calls on the scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from distributed_core.client.asking import ON_ERROR, Asking, outcome_of
from distributed_core.errors import NotSerializable, UsageError
from distributed_core.messages import Payload
from distributed_core.plugins import NannyPlugin, SchedulerPlugin, UploadFile, WorkerCallback, WorkerPlugin, plugin_name
from distributed_core.protocol import payload as payloads

HOW_TO_ALLOW = (
    "the scheduler opens no pickled code; put it into a module, let the operator allow that with "
    "`dscheduler --preload MODULE`, and name it here as 'module:function'"
)


class PluginCalls(Asking):
    """Code of the user's beside tasks."""

    # --- functions --------------------------------------------------------------------------------

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        workers: Any = None,
        wait: bool = True,
        nanny: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Run a function on all workers, beside their tasks and at once; return its results by worker address.

        A function runs in a thread of its own, a coroutine function on the worker's loop. A parameter `dask_worker` or
        `worker` gets the `Worker`.

        Parameters
        ----------
        workers
            Names or addresses of the workers; all by default.
        wait
            If false, do not wait for the end; the results are None, and failures only in the workers' logs.
        nanny
            Run it on their nannies instead; the parameters `dask_worker`, `worker` and `nanny` get the `Nanny`.
        on_error
            `raise` the first exception, `return` exceptions in place of results, or `ignore` those workers.

        Raises
        ------
        UsageError
            A worker is not there, or an option makes no sense.
        NotSerializable
            The function or an argument cannot travel.
        Exception
            What the function raised.
        """
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error is one of {', '.join(ON_ERROR)}, not {on_error!r:.40}")
        if not callable(function):
            raise UsageError(f"run needs something to call, not {type(function).__name__}")
        body, payload = payloads.dumps_function(function), payloads.dumps((args, kwargs))
        arguments = {"body": body, "payload": payload, "wait": bool(wait)}
        return self._answer(self._run(arguments, workers, nanny, on_error))

    async def _run(self, arguments: dict[str, Any], workers: Any, nanny: bool, on_error: str) -> dict[str, Any]:
        results = {}
        for address, answer in (await self._ask_each("run", arguments, workers, nanny=nanny)).items():
            well, value = outcome_of(answer)
            if not well and on_error == "raise":
                raise value
            if well or on_error == "return":
                results[address] = value
        return results

    def run_on_scheduler(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a module that the scheduler's operator allowed; return what it returns.

        A parameter `scheduler` or `dask_scheduler` gets the `Scheduler`. The function runs on the scheduler's loop,
        where nothing else runs meanwhile: keep it short, or make it a coroutine function.

        Parameters
        ----------
        function
            Its import path, `module:function`.
        args, kwargs
            Plain data: numbers, text, bytes, lists, dicts.

        Raises
        ------
        UsageError
            It is not allowed, not there, or returned what is no plain data; the sentence says how to allow it.
        RemoteError
            It raised.
        """
        if not isinstance(function, str):
            name = getattr(function, "__qualname__", type(function).__name__)
            raise UsageError(f"{name} cannot be sent to the scheduler: {HOW_TO_ALLOW}")
        return self._answer(self._run_on_scheduler(function, args, kwargs))

    async def _run_on_scheduler(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await self._ask("run_on_scheduler", path=path, args=list(args), kwargs=kwargs)
        except NotSerializable as error:
            text = f"an argument of {path} is no plain data ({error}); the scheduler takes numbers, text, bytes, lists"
            raise UsageError(f"{text} and dicts") from None

    # --- plugins ----------------------------------------------------------------------------------

    def register_plugin(self, plugin: Any, name: str | None = None) -> Any:
        """Bring a plugin to all workers, nannies, or to the scheduler, also to those that come later.

        Where it fails on one, it is taken back from all. A plugin of the same name is replaced.

        Parameters
        ----------
        plugin
            A `WorkerPlugin` or `NannyPlugin`; or the import path `module:Class` of a `SchedulerPlugin`, or an instance
            of one that has no state, whose module the scheduler's operator allowed.
        name
            By default the plugin's own, or its class's.

        Raises
        ------
        UsageError
            It is no plugin, or the scheduler's operator did not allow its module.
        Exception
            What its `setup` raised.
        """
        if isinstance(plugin, str):
            return self._answer(self._ask("scheduler_plugin_register", path=plugin, name=name))
        if isinstance(plugin, type):
            raise UsageError(f"a plugin is an instance; write {plugin.__name__}() instead of {plugin.__name__}")
        if isinstance(plugin, SchedulerPlugin):
            kind = type(plugin)
            if vars(plugin):
                raise UsageError(f"a {kind.__name__} with state of its own cannot be sent: {HOW_TO_ALLOW}")
            path = f"{kind.__module__}:{kind.__qualname__}"
            return self._answer(self._ask("scheduler_plugin_register", path=path, name=name))
        if isinstance(plugin, NannyPlugin):
            book = "nanny"
        elif isinstance(plugin, WorkerPlugin):
            book = "worker"
        else:
            raise UsageError(
                f"{type(plugin).__name__} is no plugin; derive it from WorkerPlugin, NannyPlugin or SchedulerPlugin"
            )
        return self._answer(self._register(book, plugin_name(plugin, name), payloads.dumps(plugin)))

    def register_worker_callbacks(self, setup: Callable[..., Any]) -> Any:
        """Call `setup()`, or `setup(worker)`, on every worker, now and when it comes; as a plugin of its own."""
        if not callable(setup):
            raise UsageError(f"setup is something to call, not {type(setup).__name__}")
        return self.register_plugin(WorkerCallback(setup))

    async def _register(self, book: str, name: str, payload: Payload) -> dict[str, Any]:
        answers = await self._ask("plugin_register", kind=book, name=name, payload=payload)
        for answer in answers.values():
            well, value = outcome_of(answer)
            if not well:
                raise value
        return {address: {"status": "OK"} for address in answers}

    def unregister_worker_plugin(self, name: str, nanny: bool = False) -> Any:
        """Take a plugin back from all workers, or from all nannies.

        Raises
        ------
        UsageError
            None of that name is there.
        Exception
            What its `teardown` raised.
        """
        return self._answer(self._unregister("nanny" if nanny else "worker", name))

    async def _unregister(self, book: str, name: str) -> dict[str, Any]:
        answers = await self._ask("plugin_unregister", kind=book, name=name)
        for answer in answers.values():
            well, value = outcome_of(answer)
            if not well:
                raise value
        return {address: {"status": "OK"} for address in answers}

    def unregister_scheduler_plugin(self, name: str) -> Any:
        """Take a plugin of the scheduler back; by default its name is its import path.

        Raises
        ------
        UsageError
            None of that name is there.
        """
        return self._answer(self._ask("scheduler_plugin_unregister", name=name))

    def upload_file(self, filename: str | os.PathLike[str], load: bool = True) -> Any:
        """Bring a module to all workers, also to those that come later; the same name again replaces it.

        Parameters
        ----------
        filename
            A .py file, or a .zip or .egg of modules and packages.
        load
            Import it there at once, anew where an older one was imported.

        Raises
        ------
        UsageError
            It is not there, of another kind, or broken.
        Exception
            What its import raised on a worker.
        """
        return self.register_plugin(UploadFile(filename, load))
