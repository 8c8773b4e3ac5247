"""The executor with real commands: shell scripts that stand for an abbot of any protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.executor import Encoding, Executor, NetworkSettings, readable
from edgefarm.agentbus import Status
from edgefarm.nats import nkeys
from tests.natskit import eventually

MakeExecutor = Callable[..., Executor]

#: What an agent's environment holds that no command may see.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/root",
    "EDGEFARM_VAULT_ADDR": "https://vault.example",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}


@pytest.fixture
async def make() -> AsyncIterator[MakeExecutor]:
    """Makes executors of a shell script, and ends them after the test."""
    executors: list[Executor] = []

    def make(script: str, **settings: Any) -> Executor:
        network = NetworkSettings(**{"enabled": True, "arguments": ("/bin/sh", "-c", script), **settings})
        executors.append(Executor(network, ENVIRONMENT))
        return executors[-1]

    yield make
    await asyncio.gather(*(executor.close() for executor in executors))


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_request_goes_in_as_base64_and_the_answer_comes_out_of_base64(make: MakeExecutor, work: Path) -> None:
    executor = make(f"tee {work}/stdin")
    answer = await executor.run(b"\x00\xffquery", seconds=10)
    assert (answer.status, answer.data, answer.exit_status) == (Status.DONE, b"\x00\xffquery", 0)
    assert (work / "stdin").read_bytes() == base64.b64encode(b"\x00\xffquery")


async def test_raw_encodings_hand_every_byte_through(make: MakeExecutor) -> None:
    executor = make("cat", stdin=Encoding.RAW, stdout=Encoding.RAW)
    data = bytes(range(256)) * 4096
    assert (await executor.run(data, seconds=10)).data == data


async def test_a_foreign_protocol_behind_an_interactive_wrapper_works(make: MakeExecutor, work: Path) -> None:
    # As `docker exec -i box sh -c …` does: the wrapper hands its stdin through, and the program ends at end of file.
    wrapper = work / "docker"
    wrapper.write_text('#!/bin/sh\n[ "$1 $2" = "exec -i" ] || exit 9\nshift 3\n"$@"\n')
    wrapper.chmod(0o755)
    script = 'while IFS= read -r line || [ -n "$line" ]; do printf "<%s>" "$line"; done'
    executor = make(
        "", arguments=(str(wrapper), "exec", "-i", "box", "sh", "-c", script), stdin=Encoding.RAW, stdout=Encoding.RAW
    )
    answer = await executor.run(b"HELLO 1\nBYE", seconds=10)
    assert answer.data == b"<HELLO 1><BYE>"


async def test_base64_in_lines_and_with_a_new_line_is_read(make: MakeExecutor) -> None:
    executor = make("base64 -d | base64 -w 20")
    data = b"x" * 1000
    assert (await executor.run(data, seconds=10)).data == data


async def test_large_requests_and_answers_pass(make: MakeExecutor) -> None:
    data = os.urandom(3 * 1024 * 1024)
    assert (await make("cat").run(data, seconds=20)).data == data


async def test_a_command_that_does_not_read_its_input_is_not_waited_for(make: MakeExecutor) -> None:
    answer = await make("exec 0<&-; echo YWJj").run(os.urandom(4 * 1024 * 1024), seconds=10)
    assert answer.data == b"abc"


async def test_a_failure_hands_back_status_and_the_commands_own_words(make: MakeExecutor) -> None:
    answer = await make("echo 'interface mesh0 belongs to another provider' >&2; exit 3").run(b"q", seconds=10)
    assert (answer.status, answer.exit_status) == (Status.FAILED, 3)
    assert answer.text == "interface mesh0 belongs to another provider"


async def test_a_silent_failure_says_at_least_its_status(make: MakeExecutor) -> None:
    answer = await make("exit 4").run(b"q", seconds=10)
    assert answer.text == "/bin/sh ended with status 4 and said nothing"


async def test_a_command_killed_by_others_names_the_signal(make: MakeExecutor) -> None:
    answer = await make("echo bad >&2; kill -SEGV $$").run(b"q", seconds=10)
    assert (answer.status, answer.exit_status) == (Status.FAILED, -signal.SIGSEGV)
    assert answer.text == "/bin/sh was killed by SIGSEGV; it said: bad"


async def test_a_missing_program_is_named(make: MakeExecutor) -> None:
    answer = await make("", arguments=("/no/such/abbot", "process")).run(b"q", seconds=10)
    assert (answer.status, answer.text) == (Status.FAILED, "cannot run /no/such/abbot: No such file or directory")


@pytest.mark.parametrize("output", ["not base64!", "abc", "{}"])
async def test_an_answer_that_is_not_base64_is_an_error_that_does_not_repeat_it(
    make: MakeExecutor, output: str
) -> None:
    answer = await make(f"printf '%s' '{output}'").run(b"q", seconds=10)
    assert (answer.status, answer.exit_status) == (Status.FAILED, 0)
    assert answer.text == "the answer of /bin/sh is not base64, as network.stdoutEncoding says"


async def test_the_command_sees_path_and_home_and_nothing_else_of_the_agent(make: MakeExecutor) -> None:
    executor = make("", arguments=("env",), stdout=Encoding.RAW)
    answer = await executor.run(b"q", seconds=10)
    assert sorted(answer.text.split()) == sorted([f"PATH={ENVIRONMENT['PATH']}", "HOME=/root"])


async def test_path_and_home_are_there_even_where_the_agent_has_none() -> None:
    executor = Executor(NetworkSettings(enabled=True, arguments=("env",), stdout=Encoding.RAW), {})
    answer = await executor.run(b"q", seconds=10)
    await executor.close()
    assert "PATH=/" in answer.text
    assert "HOME=/" in answer.text


async def test_the_command_inherits_no_open_files(make: MakeExecutor, work: Path) -> None:
    with (work / "secret").open("w"):
        answer = await make("ls -l /proc/self/fd", stdout=Encoding.RAW).run(b"q", seconds=10)
    assert "secret" not in answer.text


async def test_the_request_is_neither_in_the_arguments_nor_in_errors(make: MakeExecutor) -> None:
    secret = base64.b64encode(b"private key of the device")
    arguments = await make("tr '\\0' ' ' < /proc/$$/cmdline", stdout=Encoding.RAW).run(secret, seconds=10)
    assert base64.b64encode(secret) not in arguments.data
    echoed = await make("cat >&2; exit 1").run(secret, seconds=10)
    assert echoed.text == "[request]"


async def test_a_timeout_kills_the_command_and_what_it_started(make: MakeExecutor, work: Path) -> None:
    # The grandchild ignores SIGTERM and holds on to the command's output.
    script = f"(trap '' TERM; echo $$ >/dev/null; while :; do sleep 0.1; done) & echo $! > {work}/pid; sleep 60"
    executor = make(script, timeout=0.5)
    answer = await executor.run(b"q", seconds=30)
    assert answer.status is Status.TIMEOUT
    assert answer.text == "/bin/sh was ended after 0.5 s"
    pid = int((work / "pid").read_text())
    await eventually(lambda: not alive(pid), "the grandchild is gone")


async def test_the_shorter_one_of_both_timeouts_counts_and_words_are_kept(make: MakeExecutor) -> None:
    answer = await make("echo waiting for the daemon >&2; sleep 60", timeout=30).run(b"q", seconds=0.5)
    assert answer.status is Status.TIMEOUT
    assert answer.text.endswith("; it said: waiting for the daemon")


async def test_a_command_gets_the_chance_to_end_in_order(make: MakeExecutor, work: Path) -> None:
    script = f"trap 'echo cleaned > {work}/end; exit 0' TERM; while :; do sleep 0.05; done"
    await make(script, timeout=0.5).run(b"q", seconds=30)
    assert (work / "end").read_text() == "cleaned\n"


async def test_too_much_output_ends_the_command(make: MakeExecutor, work: Path) -> None:
    executor = make(f"echo $$ > {work}/pid; yes", max_output=100_000)
    answer = await executor.run(b"q", seconds=30)
    assert answer.status is Status.TOO_LARGE
    assert "more than 100000 bytes" in answer.text
    assert not alive(int((work / "pid").read_text()))


async def test_what_a_command_leaves_running_does_not_hold_up_its_answer(make: MakeExecutor, work: Path) -> None:
    answer = await make(f"sleep 60 & echo $! > {work}/pid; printf YWJj").run(b"q", seconds=30)
    assert answer.data == b"abc"
    os.kill(int((work / "pid").read_text()), signal.SIGKILL)


async def test_endless_errors_are_cut_to_their_end(make: MakeExecutor) -> None:
    answer = await make("seq 1 200000 >&2; echo at last >&2; exit 1").run(b"q", seconds=30)
    assert len(answer.text) < 2100
    assert answer.text.startswith("… ")
    assert answer.text.endswith("200000 at last")


def test_words_become_one_printable_line_without_credentials() -> None:
    seed = nkeys.generate_user().seed
    text = f"\x1b[31mbad\x1b[0m\tkey\r\n\x00\u202eline two {seed} ".encode() + b"\xff"
    assert readable(text) == "bad key line two [secret] \ufffd"


async def test_a_disabled_network_answers_at_once_and_runs_nothing(make: MakeExecutor, work: Path) -> None:
    answer = await make(f"touch {work}/ran", enabled=False).run(b"q", seconds=10)
    assert (answer.status, answer.exit_status) == (Status.UNSUPPORTED, None)
    assert "network.enabled" in answer.text
    assert not (work / "ran").exists()


async def test_container_requests_need_a_host_with_containers(make: MakeExecutor, work: Path) -> None:
    refused = await make(f"touch {work}/ran; cat").run(b"q", seconds=10, container=True)
    assert refused.status is Status.UNSUPPORTED
    assert not (work / "ran").exists()
    assert (await make("cat", containers=True).run(b"q", seconds=10, container=True)).data == b"q"


async def test_twenty_requests_at_once_run_two_at_a_time(make: MakeExecutor, work: Path) -> None:
    # A command that finds two others running says so.
    script = (
        f"mkdir {work}/$$; count=$(ls {work} | wc -l); [ $count -le 2 ] || exit 7; sleep 0.05; rmdir {work}/$$; cat"
    )
    executor = make(script, concurrency=2)
    requests = [str(number).encode() for number in range(20)]
    answers = await asyncio.gather(*(executor.run(request, seconds=60) for request in requests))
    assert [answer.data for answer in answers] == requests


async def test_what_is_more_than_can_wait_is_told_to_come_back(make: MakeExecutor) -> None:
    executor = make("sleep 60", concurrency=1)
    tasks = [asyncio.create_task(executor.run(b"q", seconds=60)) for _ in range(40)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert {task.result().status for task in done} == {Status.BUSY}
    await executor.close()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {Status.BUSY}


async def test_waiting_counts_towards_the_requests_own_timeout(make: MakeExecutor, work: Path) -> None:
    executor = make(f"echo x >> {work}/ran; sleep 60", concurrency=1)
    first = asyncio.create_task(executor.run(b"q", seconds=60))
    await eventually((work / "ran").exists, "the first one runs")
    answer = await executor.run(b"q", seconds=0.2)
    assert answer.status is Status.TIMEOUT
    assert "others were running" in answer.text
    await executor.close()
    assert (await first).status is Status.BUSY
    assert (work / "ran").read_text() == "x\n"


async def test_closing_ends_running_commands_in_time(make: MakeExecutor, work: Path) -> None:
    executor = make(f"trap '' TERM; echo $$ > {work}/pid; while :; do sleep 0.1; done")
    running = asyncio.create_task(executor.run(b"q", seconds=60))
    await eventually(lambda: (work / "pid").exists() and bool((work / "pid").read_text()), "it runs")
    began = time.monotonic()
    await executor.close()
    assert time.monotonic() - began < 5
    assert not alive(int((work / "pid").read_text()))
    assert (await running).text == "the agent is ending"
    assert (await executor.run(b"q", seconds=10)).status is Status.BUSY
