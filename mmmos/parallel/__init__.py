"""One ``map`` over tasks, wherever they run, and threads that work ahead.

A task is a small picklable record; its function is importable from a module, writes its own results durably and returns
a small record. So a worker that is killed costs its unfinished task, and a run that is killed goes on where it was.
No process and no thread of these outlives its use: they end when their generator is closed, and when their parent
is killed.
"""

from mmmos.parallel.ending import stop
from mmmos.parallel.inside import slot
from mmmos.parallel.mapping import map
from mmmos.parallel.places import BACKENDS, Jobs, Workers, cores, workers
from mmmos.parallel.shards import Shard, shard_of
from mmmos.parallel.working_ahead import ahead

__all__ = ["BACKENDS", "Jobs", "Shard", "Workers", "ahead", "cores", "map", "shard_of", "slot", "stop", "workers"]
