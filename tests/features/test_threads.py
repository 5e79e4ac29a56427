"""In the threads that encode, torch computes with one thread; the process gets back what it had."""

from concurrent.futures import ThreadPoolExecutor

import torch

from mmmos.features.threads import one_thread, threads


def test_the_number_of_threads_comes_back_when_the_last_is_out():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as other:
            with threads("cpu"):
                with one_thread(), threads("cpu", 2) as pool:
                    assert pool.threads.submit(torch.get_num_threads).result() == 1
                    entered = one_thread()
                    other.submit(entered.__enter__).result()
                assert torch.get_num_threads() == 1
            with ThreadPoolExecutor(1) as fresh:
                assert fresh.submit(torch.get_num_threads).result() == 1, "another thread is still inside"
            other.submit(entered.__exit__, None, None, None).result()
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
