#!/usr/bin/env python3
"""Compares how the bench drives NATS, Redis and RabbitMQ with their own bench tools.

Same work, in turns: 128 bytes to 8 subscribers, each message for one of them or, with --work
broadcast, for all, from one producer (perf-test of RabbitMQ has one for each queue). The server is on core 1, the tool on core 0. Prints
messages per second and server CPU per message of both, and their ratio by pair. Under other load
only the ratio by CPU means something.

usage: own_tools.py nats|redis|rabbitmq [--work direct|broadcast] [--pairs N] [--bench PATH]
       [--perf-test JAR_FOLDER]
"""
import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 4.0
CORES = {"tool": "0", "server": "1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not listen")


def cpu(pid):
    """CPU seconds of all threads of a process."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def on(core, *words, **more):
    return subprocess.Popen(["taskset", "-c", CORES[core], *map(str, words)], **more)


QUIET = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def go(name):
    return shutil.which(name) or os.path.expanduser(f"~/go/bin/{name}")


def nats(folder, options):
    everyone = options.work == "broadcast"
    count = 1_500_000 if everyone else 4_000_000
    port = free_port()
    conf = folder / "nats.conf"
    conf.write_text(f'listen: "127.0.0.1:{port}"\nmax_pending: 268435456\n')
    server = on("server", go("nats-server"), "-c", conf, **QUIET)
    try:
        wait(port)
        base = [go("nats"), "-s", f"127.0.0.1:{port}", "bench"]
        # A parcel of the bench has 10 bytes beside the payload.
        size = ["--size", "138", "--no-progress"]
        share = count if everyone else count // 8
        subs = [on("tool", *base, "sub", "g" if everyone else f"g.{i}", "--msgs", share, *size,
                   **QUIET) for i in range(8)]
        time.sleep(2)
        before, start = cpu(server.pid), time.monotonic()
        many = [] if everyone else ["--multisubject", "--multisubjectmax", "8"]
        pub = on("tool", *base, "pub", "g", *many, "--msgs", count, *size, **QUIET)
        for process in [pub, *subs]:
            process.wait(120)
        return count / (time.monotonic() - start), (cpu(server.pid) - before) / count * 1e6
    finally:
        server.terminate()
        server.wait()


def redis(folder, options):
    everyone = options.work == "broadcast"
    count = 1_000_000 if everyone else 3_000_000
    port = free_port()
    limit = ["--client-output-buffer-limit", "pubsub 268435456 0 0"]
    server = on("server", "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "",
                "--appendonly", "no", *limit, cwd=folder, **QUIET)
    subs = []
    try:
        wait(port)
        for i in range(8):
            sub = on("tool", "socat", "-", f"TCP:127.0.0.1:{port}", stdin=subprocess.PIPE, **QUIET)
            name = "all" if everyone else f"{i:012}"
            sub.stdin.write(f"SUBSCRIBE {name}\r\n".encode())
            sub.stdin.flush()
            subs.append(sub)
        time.sleep(1)
        before, start = cpu(server.pid), time.monotonic()
        pipelined = ["-c", 1, "-P", 512, "-n", count, "-r", 8, "-q"]
        publish = ["PUBLISH", "all" if everyone else "__rand_int__", "x" * 128]
        on("tool", "redis-benchmark", "-p", port, *pipelined, *publish, **QUIET).wait(120)
        return count / (time.monotonic() - start), (cpu(server.pid) - before) / count * 1e6
    finally:
        for sub in subs:
            sub.kill()
            sub.wait()
        server.terminate()
        server.wait()


def rabbitmq(folder, options):
    port, mapper, dist = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ntcp_listen_options.nodelay = true\n"
        "tcp_listen_options.sndbuf = 196608\ntcp_listen_options.recbuf = 196608\n"
        "vm_memory_high_watermark.absolute = 8GB\ndisk_free_limit.absolute = 1MB\n"
        "log.file = false\nlog.console = true\nlog.console.level = error\n")
    (folder / "enabled_plugins").write_text("[].")
    paths = {"MNESIA_BASE": "mnesia", "LOG_BASE": "log", "CONFIG_FILE": "rabbitmq.conf",
             "ENABLED_PLUGINS_FILE": "enabled_plugins", "PID_FILE": "pid"}
    env = dict(os.environ, HOME=str(folder), RUNNING_UNDER_SYSTEMD="1",
               ERL_EPMD_PORT=str(mapper), ERL_EPMD_ADDRESS="127.0.0.1",
               RABBITMQ_CONF_ENV_FILE="/dev/null", RABBITMQ_NODENAME="own@localhost",
               RABBITMQ_DIST_PORT=str(dist),
               **{f"RABBITMQ_{name}": str(folder / path) for name, path in paths.items()})
    epmd = on("server", "epmd", "-address", "127.0.0.1", "-port", mapper, **QUIET)
    wait(mapper)
    server = on("server", "/usr/lib/rabbitmq/bin/rabbitmq-server", env=env, **QUIET)
    try:
        wait(port)
        time.sleep(2)
        out = folder / "perf.txt"
        everyone = options.work == "broadcast"
        fanout = ["-x", 1, "-y", 8, "-t", "fanout", "-e", "everyone"]
        queues = ["-x", 8, "-y", 8, "-qp", "q%d", "-qpf", 1, "-qpt", 8]
        work = [*(fanout if everyone else queues), "-a", "-s", 128, "-z", 12, "-i", 1]
        tool = on("tool", "java", "-cp", f"{options.perf_test}/*", "com.rabbitmq.perf.PerfTest",
                  "-h", f"amqp://127.0.0.1:{port}", *work,
                  stdout=open(out, "w"), stderr=subprocess.DEVNULL)

        def received():
            if tool.poll():
                sys.exit("perf-test failed; is --perf-test its folder of jars?")
            return [line for line in out.read_text().splitlines() if "received:" in line]

        # The JVM warms up; then messages and CPU over the same span, from what it prints each
        # second.
        while len(received()) < 4:
            time.sleep(0.02)
        before, first, start = cpu(server.pid), len(received()), time.monotonic()
        while len(received()) < first + 5:
            time.sleep(0.02)
        used, took = cpu(server.pid) - before, time.monotonic() - start
        tool.wait(60)
        lines = received()[first:first + 5]
        words = [line.split("received:")[1].split("msg/s")[0] for line in lines]
        count = sum(float(word.strip().replace(",", "")) for word in words) / 5 * took
        count /= 8 if everyone else 1
        return count / took, used / count * 1e6
    finally:
        server.terminate()
        server.wait()
        epmd.terminate()
        epmd.wait()


WORK = {
    "direct": {"nats": "nats/gw", "redis": "redis/uid", "rabbitmq": "rabbitmq"},
    "broadcast": {"nats": "nats/uid", "redis": "redis/uid", "rabbitmq": "rabbitmq"},
}
KIND = {"direct": "single", "broadcast": "broadcast"}


def ours(peer, folder, options):
    scenario = folder / "own.toml"
    scenario.write_text(
        f'title = "own"\nkind = "throughput"\nwork = "{KIND[options.work]}"\n'
        f'targets = ["{WORK[options.work][peer]}"]\n'
        f"users = [8]\ngateways = [8]\npayload_bytes = [128]\nrepeats = 1\n"
        f"seconds = {SECONDS}\n")
    run = [options.bench, "run", scenario, "--json", folder / "own.json"]
    subprocess.run(run, check=True, **QUIET)
    row = json.loads((folder / "own.json").read_text())["scenarios"][0]["rows"][0]
    assert row["ok"], row
    figures = row["figures"]
    return figures["messages_per_s"], figures["cpu_us_per_message"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=WORK["direct"])
    parser.add_argument("--work", choices=WORK, default="direct")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--bench", default="target/release/waybill-bench")
    parser.add_argument("--perf-test", default="lib")
    options = parser.parse_args()
    ratios = []
    for _ in range(options.pairs):
        with tempfile.TemporaryDirectory() as folder:
            own = globals()[options.peer](pathlib.Path(folder), options)
        with tempfile.TemporaryDirectory() as folder:
            bench = ours(options.peer, pathlib.Path(folder), options)
        ratios.append((bench[0] / own[0], own[1] / bench[1]))
        print(f"own tool {own[0]:9.0f}/s {own[1]:6.2f} us   bench {bench[0]:9.0f}/s "
              f"{bench[1]:6.2f} us   rate x{ratios[-1][0]:.2f}, "
              f"by server CPU x{ratios[-1][1]:.2f}", flush=True)
    print(f"{options.peer}, {options.work}: bench / own tool: rate x{statistics.median(r for r, _ in ratios):.2f}, "
          f"by server CPU x{statistics.median(c for _, c in ratios):.2f}")


main()
