"""Each engine by its own commands, on loopback, behind one shape of client.

It runs in the engine's own interpreter, which may be old: no imports of this package, and nothing newer than 3.6.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import psutil

DEADLINE_S = 90.0
HERE = os.path.dirname(os.path.abspath(__file__))


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError(what + " was not there in time")
        time.sleep(0.01)


def cpu_s(processes):
    """Return the processor time, in seconds, that these processes took so far."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Engine:
    """A scheduler and single-threaded workers; a context manager.

    `client` has `submit`, `map`, `scatter` and `gather`; tasks are never shared between calls (`pure=False`).
    """

    def __init__(self, workers, arguments=()):
        self.workers = workers
        self.arguments = list(arguments)
        self.folder = tempfile.mkdtemp(prefix="benchmark-")
        self.started = []

    def launch(self, *argv, **environment):
        with open(os.path.join(self.folder, "%d.log" % len(self.started)), "wb") as log:
            process = subprocess.Popen(
                argv, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=dict(os.environ, **environment)
            )
        self.started.append(process)
        return psutil.Process(process.pid)

    def __enter__(self):
        begin = time.monotonic()
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        self.ready_s = time.monotonic() - begin
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(Exception):
            self.client.close()
        self.end()

    def end(self):
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def scheduler_cpu_s(self):
        return cpu_s([self.scheduler])

    def workers_cpu_s(self):
        return cpu_s(self.worker_processes)

    def submit(self, function, *args):
        return self.client.submit(function, *args, pure=False)

    def submit_on(self, place, function, *args):
        """Run it on the worker at this place of their list."""
        where = sorted(self.client.nthreads())[place]
        return self.client.submit(function, *args, pure=False, workers=[where])

    def map(self, function, *iterables):
        return self.client.map(function, *iterables, pure=False)

    def gather(self, futures):
        return self.client.gather(futures)

    def scatter(self, value):
        return self.client.scatter(value)


class Core(Engine):
    """This project: `dscheduler` and `dworker`, TLS on as shipped."""

    security = []

    def start(self):
        from distributed_core import Client

        commands = os.path.dirname(sys.executable)
        named = os.path.join(self.folder, "scheduler.json")
        self.scheduler = self.launch(
            commands + "/dscheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--scheduler-file",
            named,
            *self.security,
            *self.arguments,
        )
        worker = [commands + "/dworker", "--scheduler-file", named, "--host", "127.0.0.1", "--nthreads", "1"]
        worker += ["--no-nanny", "--memory-limit", "0", *self.security]
        self.worker_processes = [self.launch(*worker) for _ in range(self.workers)]
        wait_for(lambda: os.path.exists(named), "the scheduler file")
        self.client = Client(scheduler_file=named, insecure=bool(self.security))
        self.client.wait_for_workers(self.workers, timeout=DEADLINE_S)


class InsecureCore(Core):
    """This project without TLS."""

    security = ["--insecure"]


class Dask(Engine):
    """dask.distributed by its own commands, as shipped."""

    saturation = "1.1"

    def settings(self):
        """Return the environment of its processes."""
        return {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": self.saturation}

    def start(self):
        os.environ.update(self.settings())
        from distributed import Client

        named = os.path.join(self.folder, "scheduler.json")
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        self.scheduler = self.launch(*command, "--no-dashboard", "--scheduler-file", named)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", named]
        command += ["--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        self.worker_processes = [self.launch(*command) for _ in range(self.workers)]
        wait_for(lambda: os.path.exists(named) and os.path.getsize(named), "the scheduler file")
        self.client = Client(scheduler_file=named)
        self.client.wait_for_workers(self.workers, timeout=DEADLINE_S)


class TunedDask(Dask):
    """dask.distributed without its withholding of root tasks: the setting for many small tasks."""

    saturation = "inf"


class SecureDask(Dask):
    """dask.distributed with mutual TLS, as this project ships."""

    def settings(self):
        subject = ["-subj", "/CN=benchmark", "-days", "2"]
        key, certificate = os.path.join(self.folder, "key.pem"), os.path.join(self.folder, "certificate.pem")
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.check_call(
            ["openssl", "req", "-x509", *kind, "-keyout", key, "-out", certificate, *subject], stderr=subprocess.DEVNULL
        )
        own = {"REQUIRE_ENCRYPTION": "True", "TLS__CA_FILE": certificate}
        for role in ("CLIENT", "SCHEDULER", "WORKER"):
            own["TLS__%s__CERT" % role] = certificate
            own["TLS__%s__KEY" % role] = key
        return dict(Dask.settings(self), **{"DASK_DISTRIBUTED__COMM__" + name: value for name, value in own.items()})


class Seed(Engine):
    """distributed 1.10.2, the release of spring 2016, whose client is an Executor."""

    def start(self):
        from distributed import Executor

        os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), HERE])
        port = 20000 + os.getpid() % 20000
        command = [sys.executable, "-m", "distributed.cli.dscheduler", "--host", "127.0.0.1", "--port", str(port)]
        self.scheduler = self.launch(*command, "--http-port", str(port + 1), "--no-bokeh")
        command = [sys.executable, "-m", "distributed.cli.dworker", "127.0.0.1:%d" % port, "--nthreads", "1"]
        parents = [self.launch(*command) for _ in range(self.workers)]

        def connected():
            with contextlib.suppress(Exception):
                return Executor(("127.0.0.1", port), timeout=2)

        self.client = wait_for(connected, "the scheduler")
        self.client.close = self.client.shutdown
        self.client.nthreads = self.client.ncores
        wait_for(lambda: len(self.client.ncores()) == self.workers, "a worker")
        # Its workers are children of its nannies.
        self.worker_processes = parents + [child for parent in parents for child in parent.children(recursive=True)]

    def end(self):
        # A nanny that is told to end leaves its worker running.
        for process in getattr(self, "worker_processes", ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        Engine.end(self)

    def map(self, function, *iterables):
        return self.client.map(function, *[list(each) for each in iterables], pure=False)

    def scatter(self, value):
        return self.client.scatter([value])[0]


class Ray(Engine):
    """Ray by `ray.init` on this machine; what is not a worker counts as scheduler."""

    def start(self):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self.ray = self.client = ray
        self.client.close = ray.shutdown
        ray.init(
            num_cpus=self.workers,
            include_dashboard=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            object_store_memory=2 << 30,
        )
        self.remote = {}

    def _named(self, words):
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                line = " ".join(process.cmdline()[:2])
                if any(word in line for word in words):
                    found.append(process)
        return found

    def scheduler_cpu_s(self):
        return cpu_s(self._named(("gcs_server", "raylet")))

    def workers_cpu_s(self):
        return cpu_s(self._named(("ray::", "default_worker")))

    def submit(self, function, *args):
        if function not in self.remote:
            self.remote[function] = self.ray.remote(num_cpus=1)(function)
        return self.remote[function].remote(*args)

    def submit_on(self, place, function, *args):
        return self.submit(function, *args)

    def map(self, function, *iterables):
        return [self.submit(function, *args) for args in zip(*iterables)]

    def gather(self, futures):
        return self.ray.get(futures)

    def scatter(self, value):
        return self.ray.put(value)


ENGINES = {
    "core": Core,
    "core-insecure": InsecureCore,
    "dask": Dask,
    "dask-inf": TunedDask,
    "dask-tls": SecureDask,
    "seed": Seed,
    "ray": Ray,
}


def main():
    """Run one workload on one engine: ENGINE WORKLOAD WORKERS SCALE; the last line is its figures as JSON."""
    import workloads

    engine, workload, workers, scale = sys.argv[1:5]
    with ENGINES[engine](int(workers)) as made:
        figures = workloads.WORKLOADS[workload](made, float(scale))
    print(json.dumps(figures))


if __name__ == "__main__":
    # Functions belong to the module that runs: so every engine sends them by value, as a user's script does.
    sys.path.insert(0, HERE)
    main()
