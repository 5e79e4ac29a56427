"""Several hosts, as network namespaces of this machine: one of them dies with all that it runs."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("distributed")

HERE = Path(__file__).parent
PORT = "8786"
DRIVER = """
import os, subprocess, sys
from functools import partial
import cluster_tasks
from mmmos import parallel

folder, address, host = sys.argv[1:]
with_both, done = set(), 0
for process in parallel.map(partial(cluster_tasks.slow_pid, folder), range(60), jobs=parallel.Workers("dask", address)):
    with_both.add(process)
    done += 1
    if done >= 20 and len(with_both) == 2 and host:
        pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True).stdout.split()
        for pid in map(int, pids):
            os.kill(pid, 9)
        host = ""
print(done, len(with_both), host or "one host died")
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Names of three hosts, 10.77.0.1 to .3, on one network; they go with all that runs in them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no command ip")
    bridge, names = f"mb{os.getpid()}", [f"mmmos-{os.getpid()}-{number}" for number in (1, 2, 3)]
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
            stack.callback(ip, "link", "del", bridge)
            ip("link", "set", bridge, "up")
            for number, name in enumerate(names, start=1):
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                outside = f"mv{os.getpid()}{number}"
                ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", outside, "master", bridge, "up")
                ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
                for device in ("eth0", "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
        yield names


def test_a_host_that_dies_costs_the_tasks_that_it_was_at(hosts, tmp_path):
    head, *others = hosts
    address = f"tcp://10.77.0.1:{PORT}"
    environment = os.environ | {"PYTHONPATH": str(HERE), "TMPDIR": str(tmp_path)}
    dask = [sys.executable, "-m", "dask"]
    commands = {head: ["scheduler", "--host", "10.77.0.1", "--port", PORT]}
    commands |= {other: ["worker", address, "--nworkers", "1", "--nthreads", "1"] for other in others}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path, "env": environment}
    with ExitStack() as stack:
        for host, command in commands.items():
            started = ["ip", "netns", "exec", host, *dask, *command, "--no-dashboard"]
            process = stack.enter_context(subprocess.Popen(started, **quiet))
            stack.callback(process.kill)
        driver = ["ip", "netns", "exec", head, sys.executable, "-c", DRIVER, str(tmp_path), address, others[1]]
        done = subprocess.run(driver, capture_output=True, text=True, env=environment, timeout=120)
        for host in hosts:
            pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split(maxsplit=1)[0] == "60"
    assert done.stdout.endswith("one host died\n")
    executed = (tmp_path / "executed").read_text().split()
    assert set(executed) == set(map(str, range(60))) and len(executed) <= 62
