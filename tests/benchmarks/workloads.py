"""The same work on every engine; each function returns its figures by name.

As `engines`: it runs in interpreters down to 3.6. `scale` multiplies the number of tasks or bytes.
"""

import statistics
import sys
import time


def by_value(function):
    """Let a function be one of the script that runs, so that it travels by value everywhere.

    The cloudpickle of 2016 does not know the byte-code of Python 3.6: there, workers import this module.
    """
    if sys.argv[1:2] != ["seed"]:
        function.__module__ = "__main__"
        setattr(sys.modules["__main__"], function.__name__, function)
    return function


@by_value
def increment(x):
    return x + 1


@by_value
def add(x, y):
    return x + y


@by_value
def total(*parts):
    return sum(parts)


@by_value
def spread(x, n):
    return [x] * n


@by_value
def pick(parts, place):
    return parts[place]


@by_value
def ones(nbytes):
    import numpy

    return numpy.ones(nbytes, dtype="u1")


@by_value
def nbytes_of(*arrays):
    return sum(array.nbytes for array in arrays)


def timed(engine, tasks, work):
    """Return tasks per second and the processor time per task of scheduler and workers, in microseconds."""
    engine.gather(engine.map(increment, range(100)))
    scheduler_s, workers_s, begin = engine.scheduler_cpu_s(), engine.workers_cpu_s(), time.perf_counter()
    work()
    wall_s = time.perf_counter() - begin
    return {
        "tasks/s": tasks / wall_s,
        "scheduler us/task": 1e6 * (engine.scheduler_cpu_s() - scheduler_s) / tasks,
        "worker us/task": 1e6 * (engine.workers_cpu_s() - workers_s) / tasks,
    }


def noop(engine, scale):
    """Independent tiny tasks: all submitted, all gathered."""
    n = int(20000 * scale)

    def work():
        assert engine.gather(engine.map(increment, range(n))) == list(range(1, n + 1))

    return timed(engine, n, work)


def latency(engine, scale):
    """One task at a time, from submit to result."""
    times_s = []
    for i in range(int(300 * scale) + 20):
        begin = time.perf_counter()
        assert engine.gather([engine.submit(increment, i)]) == [i + 1]
        times_s.append(time.perf_counter() - begin)
    times_s = sorted(times_s[20:])
    return {"p50 ms": 1e3 * statistics.median(times_s), "p99 ms": 1e3 * times_s[int(len(times_s) * 0.99)]}


def chain(engine, scale):
    """Each task needs the one before; all are submitted at once."""
    n = int(1000 * scale)
    engine.gather(engine.map(increment, range(100)))
    begin = time.perf_counter()
    future = engine.submit(increment, 0)
    for _ in range(n - 1):
        future = engine.submit(increment, future)
    assert engine.gather([future]) == [n]
    return {"ms/link": 1e3 * (time.perf_counter() - begin) / n}


def tree(engine, scale):
    """A binary tree of sums: 4,096 leaves make 8,191 tasks."""
    leaves = 1
    while leaves < 4096 * scale:
        leaves *= 2

    def work():
        level = engine.map(increment, range(leaves))
        while len(level) > 1:
            level = engine.map(add, level[::2], level[1::2])
        assert engine.gather(level) == [sum(range(1, leaves + 1))]

    return timed(engine, 2 * leaves - 1, work)


def all_to_all(engine, scale):
    """60 tasks give 60 parts each; each of 60 others takes one part from every one of them."""
    n = max(2, int(60 * scale**0.5))

    def work():
        sources = engine.map(spread, range(n), [n] * n)
        parts = [[engine.submit(pick, source, place) for place in range(n)] for source in sources]
        sums = [engine.submit(total, *[row[place] for row in parts]) for place in range(n)]
        assert engine.gather(sums) == [sum(range(n))] * n

    return timed(engine, n * n + 2 * n, work)


def fan_in(engine, scale):
    """20 sums, each of 500 others' results."""
    n = max(2, int(500 * scale))

    def work():
        groups = [engine.map(increment, range(n)) for _ in range(20)]
        sums = [engine.submit(total, *group) for group in groups]
        assert engine.gather(sums) == [n * (n + 1) // 2] * 20

    return timed(engine, 20 * n + 20, work)


def mixed(engine, scale):
    """Results from a byte to a megabyte, each used by two others."""
    n = int(1500 * scale)
    sizes = [1 << (i * 7 % 21) for i in range(n)]

    def work():
        made = engine.map(ones, sizes)
        used = engine.map(nbytes_of, made, made[1:] + made[:1])
        assert engine.gather(used) == [a + b for a, b in zip(sizes, sizes[1:] + sizes[:1])]

    return timed(engine, 2 * n, work)


def move(engine, scale):
    """An array of 200 MB: client to worker, worker to worker, worker to client; medians of five, MB/s."""
    import numpy

    size = int((200 << 20) * scale)
    array = numpy.random.RandomState(0).randint(0, 255, size).astype("u1")
    engine.gather(engine.map(increment, range(100)))
    found = {"client to worker MB/s": [], "worker to worker MB/s": [], "worker to client MB/s": []}

    def note(name, begin):
        found[name].append(size / 1e6 / (time.perf_counter() - begin))

    for _ in range(5):
        begin = time.perf_counter()
        there = engine.scatter(array)
        assert engine.gather([engine.submit(nbytes_of, there)]) == [size]
        note("client to worker MB/s", begin)
        made = engine.submit_on(0, ones, size)
        assert engine.gather([engine.submit_on(0, nbytes_of, made)]) == [size]
        begin = time.perf_counter()
        assert engine.gather([engine.submit_on(1, nbytes_of, made)]) == [size]
        note("worker to worker MB/s", begin)
        begin = time.perf_counter()
        (back,) = engine.gather([made])
        note("worker to client MB/s", begin)
        assert back.nbytes == size
        del there, made, back
    return {name: statistics.median(values) for name, values in found.items()}


def array(engine, scale):
    """A dask.array graph of about 13,000 tasks, from building it to its result."""
    import dask
    import dask.array

    blocks = max(2, int(44 * scale**0.5))
    engine.gather(engine.map(increment, range(100)))
    begin = time.perf_counter()
    x = dask.array.ones((blocks * 10, blocks * 10), chunks=(10, 10))
    y = (x + x.T) - x.mean(axis=0)
    with dask.config.set({"optimization.fuse.active": False}):
        graph = y.sum()
        assert float(graph.compute(scheduler=engine.client)) == (blocks * 10) ** 2
    return {"s": time.perf_counter() - begin, "tasks": len(dict(graph.__dask_graph__()))}


def start(engine, scale):
    """From the first process to a client whose workers are all there."""
    return {"ready s": engine.ready_s}


WORKLOADS = {
    made.__name__: made for made in (start, noop, latency, chain, tree, all_to_all, fan_in, mixed, move, array)
}
