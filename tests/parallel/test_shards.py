"""Shards: parts of a list that are everything together and nothing twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmos.errors import UsageError
from mmmos.parallel import Shard, shard_of

ITEMS = st.lists(st.integers(), max_size=50)
COUNTS = st.integers(1, 60)


@given(ITEMS, COUNTS)
def test_blocks_one_after_the_other_are_the_list(items, count):
    blocks = [Shard(number, count).block(items) for number in range(1, count + 1)]
    assert [item for block in blocks for item in block] == items
    sizes = list(map(len, blocks))
    assert max(sizes) - min(sizes) <= 1


@given(ITEMS, COUNTS)
def test_every_item_is_in_one_shard(items, count):
    numbered = list(enumerate(items))
    parts = [Shard(number, count).every(numbered) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == numbered
    assert all(part == sorted(part) for part in parts)
    sizes = list(map(len, parts))
    assert max(sizes) - min(sizes) <= 1


def test_without_a_shard_there_is_one():
    assert shard_of(None) == Shard(1, 1)
    assert shard_of(None).every([3, 1]) == shard_of(None).block([3, 1]) == [3, 1]


def test_a_shard_is_read_as_it_is_shown():
    assert shard_of("2/4") == Shard(2, 4)
    assert shard_of(str(Shard(2, 4))) == shard_of(Shard(2, 4)) == Shard(2, 4)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "-1/4", "1", "1/", "/4", "1/4/2", "a/b", "", "²/4", "Auto"])
def test_what_is_no_shard_is_a_sentence(text):
    with pytest.raises(UsageError, match="A shard is i/N"):
        shard_of(text)


def array(first, last, step=1):
    """What Slurm sets in each task of --array=first-last:step."""
    ids = range(first, last + 1, step)
    bounds = {"SLURM_ARRAY_TASK_MIN": str(ids[0]), "SLURM_ARRAY_TASK_MAX": str(ids[-1])}
    more = {"SLURM_ARRAY_TASK_STEP": str(step), "SLURM_ARRAY_TASK_COUNT": str(len(ids))}
    return [{"SLURM_ARRAY_TASK_ID": str(each), **bounds, **more} for each in ids]


@pytest.mark.parametrize("job", [array(0, 3), array(1, 4), array(10, 40, 10), array(7, 7)])
def test_auto_is_the_place_in_a_slurm_array(job):
    shards = [shard_of("auto", environment) for environment in job]
    assert shards == [Shard(number, len(job)) for number in range(1, len(job) + 1)]


def test_an_array_with_gaps_has_no_places():
    """--array=1,3,4: three tasks, of which the last one's number says nothing of its place."""
    environment = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4"}
    environment |= {"SLURM_ARRAY_TASK_STEP": "1", "SLURM_ARRAY_TASK_COUNT": "3"}
    for task in ("1", "3", "4"):
        with pytest.raises(UsageError, match="gaps"):
            shard_of("auto", environment | {"SLURM_ARRAY_TASK_ID": task})


def test_auto_is_the_rank_in_a_slurm_step_of_several_tasks():
    assert shard_of("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}) == Shard(1, 3)
    assert shard_of("auto", {"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}) == Shard(3, 3)


def test_tasks_of_an_array_whose_steps_have_several_ranks_count_both():
    parts = [
        shard_of("auto", environment | {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "3"})
        for environment in array(0, 1)
        for rank in range(3)
    ]
    assert parts == [Shard(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize("environment", [{}, {"SLURM_ARRAY_TASK_ID": "1"}, {"SLURM_PROCID": "x", "SLURM_NTASKS": "3"}])
def test_auto_elsewhere_is_a_sentence(environment):
    with pytest.raises(UsageError, match="auto"):
        shard_of("auto", environment)
