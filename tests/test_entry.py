"""``run_all.sh`` and the command line: clear sentences, quick second calls, nothing of the user's touched."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from saliency_lib import __main__ as cli
from saliency_lib.book import commands
from saliency_lib.runtime.store import PROJECT, atomic, data_root

TOOLS = ("bash", "cat", "cksum", "awk", "df", "dirname", "mkdir", "tail", "grep", "rm", "sh")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what run_all.sh needs, and a PATH with the plain tools and no Python."""
    root, tools = tmp_path / "check out", tmp_path / "bin"
    root.mkdir()
    tools.mkdir()
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, root / name)
    shutil.copytree(PROJECT / "saliency_lib", root / "saliency_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    (tools / "df").unlink()
    script(tools / "df", "echo head; echo disk 0 0 99999999 0% /")  # whatever the disk of this machine has left
    return root, tools


def call(root, tools, *words, **environment):
    return subprocess.run(
        [root / "run_all.sh", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": str(tools), "HOME": str(root), **environment},
    )


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_script_asks_for_no_more_than_macos_has():
    """bash 3.2, and tools of POSIX; ``TOOLS`` are all that it calls."""
    text = (PROJECT / "run_all.sh").read_text()
    later = r"declare -[Ag]|local -n|mapfile|readarray|\$\{\w+[\^,@]|&>>|\|&|\bnproc\b|readlink -f|sed -i|\bcoproc\b"
    assert not re.search(later, text)
    assert subprocess.run(["bash", "--posix", "-n", PROJECT / "run_all.sh"], check=False).returncode == 0


def test_python_that_is_too_old_gets_a_sentence(checkout):
    root, tools = checkout
    done = call(root, tools, "setup")
    assert done.returncode == 1 and "needs Python 3.11 or newer with its venv module (no Python found)" in done.stderr
    script(tools / "python3", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    done = call(root, tools, "setup")
    assert done.returncode == 1 and "(python3 is 3.9)" in done.stderr and done.stderr.count("\n") == 1


def test_a_full_disk_gets_a_sentence(checkout):
    root, tools = checkout
    (tools / "df").unlink()
    script(tools / "df", "echo head; echo disk 100 90 2097152 90% /")
    done = call(root, tools, "setup")
    assert done.returncode == 1 and "has 2 GB free, the environment needs 8 GB" in done.stderr


def test_a_registry_out_of_reach_gets_a_sentence_and_the_next_call_goes_on(checkout):
    root, tools = checkout
    (tools / "python3").symlink_to(os.path.realpath(sys.executable))
    done = call(
        root, tools, "setup", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_CONFIG_FILE="/dev/null"
    )
    assert done.returncode == 1 and "the package registry cannot be reached" in done.stderr, done.stderr
    assert (root / ".venv" / "bin" / "python").exists() and not (root / ".venv" / ".complete").exists()


def test_a_ready_environment_is_used_at_once(checkout):
    root, tools = checkout
    (root / ".venv" / "bin").mkdir(parents=True)
    script(root / ".venv" / "bin" / "python", 'echo "$@"')
    key = subprocess.run(
        "cat requirements.lock pyproject.toml | cksum", shell=True, cwd=root, text=True, capture_output=True, check=True
    ).stdout
    (root / ".venv" / ".complete").write_text(key)
    assert call(root, tools, "run", "--only", "02").stdout == "-m saliency_lib run --only 02\n"


def test_the_projects_conda_environment_is_used_and_another_is_not(checkout):
    root, tools = checkout
    for name, status in (("ours", 0), ("other", 1)):
        (root / name / "bin").mkdir(parents=True)
        script(root / name / "bin" / "python", f'[ "$1" = -c ] && exit {status}; echo conda "$@"')
    assert call(root, tools, "setup", CONDA_PREFIX=str(root / "ours")).stdout == "conda -m saliency_lib setup\n"
    assert "no Python found" in call(root, tools, "setup", CONDA_PREFIX=str(root / "other")).stderr


def test_help_names_every_command_and_option(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    options = {word for action in cli.parser()._actions for word in action.option_strings}
    for word in {*cli.COMMANDS, *options, "--no-kernel"}:
        assert word in text


@pytest.mark.parametrize(
    "words,message",
    [
        (["site", "--edition", "teacher"], "unknown edition 'teacher'; one of full, student"),
        (
            ["--profile", "slow"],
            "unknown profile 'slow'; one of ['imagenette-cpu', 'paper', 'paper-cpu', 'quick', 'smoke']",
        ),
        (["--only", "99"], "no notebook '99'"),
        (["--set", "n_members"], "--set wants NAME=VALUE, not 'n_members'"),
        (["--set", "members=3"], "--set members: no parameter of"),
        (["--set", "seed=[1"], "'[1' is no value"),
        (["--only", "02", "--set", "n_kept=few"], "n_kept='few' of 02_gradient_snr should be int"),
        (["--set", "n_members=3"], "so write halving.n_members or main.n_members or many.n_members or same_start"),
        (["--only", "07", "--set", "n_members=3"], "--set n_members: a field of ensembles, so write main.n_members"),
        (["--set", "main.members=3"], "main.members: ensembles have no such field; they have dataset, model, n_memb"),
        (["--set", "main.n_members=few"], "main.n_members='few' should be int"),
        (["--set", "main.size=small"], "main.size='small' should be int or null"),
        (["--set", "main=3"], "main=3 should be fields of an ensemble, such as main.n_members=4"),
        (["--only", "04", "--set", "main.n_members=3"], "--set main: no parameter of 04_sweep_architectures"),
        (["--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["--data-root", "/no/such"], "--data-root /no/such is not a folder"),
        (["check", "--set", "seed=1"], "takes no --set"),
        (["seeds", "--set", "main.n_members=4"], "takes no --set"),
        (["--profile", "quick", "test"], "test has options of its own, which follow it: "),
    ],
)
def test_arguments_that_are_off_get_one_sentence(words, message, capsys):
    assert cli.main(words) == 2
    out = capsys.readouterr().out
    assert message in out and out.count("\n") == 1


def test_values_of_set_are_yaml():
    plain = {"a": 3, "b": "x", "c": None, "d": "1e-3", "e": "a=b"}
    assert commands.changes(["a=3", "b=x", "c=null", "d=1e-3", "e=a=b"]) == plain
    assert commands.changes(["main.a=3", "m={b: 1.5}", "main.b=x.y", "m.c=2"]) == {
        "main": {"a": 3, "b": "x.y"},
        "m": {"b": 1.5, "c": 2},
    }


def test_clean_removes_what_can_be_made_again_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "data"))
    monkeypatch.delenv("SALIENCY_RESULTS", raising=False)
    made = ["build/x", "figures/smoke/x", "figures/custom/x", "data/results/x"]
    kept = [
        "figures/quick/x",
        "figures/mnist-cnn/x",
        "data/ensembles/x",
        "data/MNIST/raw/x",
        "data/published/x",
        "mine",
    ]
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert cli.main(["clean"]) == 0
    assert not any((tmp_path / name).exists() for name in made) and all((tmp_path / name).exists() for name in kept)
    out = capsys.readouterr().out
    assert out.count("removed") == 4 and out.count("kept") == 1 and "ensembles" in out


@pytest.mark.parametrize("named", ["SALIENCY_STORE", "SALIENCY_RESULTS"])
@pytest.mark.parametrize("where", ["../home", ".", "data", "figures"])
def test_clean_leaves_folders_that_the_user_names_alone(named, where, tmp_path, monkeypatch, capsys):
    """A store or results elsewhere or among other things, and a build folder that is a link."""
    project, elsewhere = tmp_path / "project", tmp_path / "project" / where
    results = {"SALIENCY_STORE": elsewhere / "mine" / "results", "SALIENCY_RESULTS": elsewhere}[named]
    monkeypatch.setattr(cli, "PROJECT", project)
    monkeypatch.setenv("SALIENCY_STORE", str(elsewhere / "mine"))
    monkeypatch.delenv("SALIENCY_RESULTS", raising=False)
    if named == "SALIENCY_RESULTS":
        monkeypatch.setenv(named, str(results))
    kept = [results / "x", elsewhere / "x", elsewhere / "published" / "x", project / "built" / "x"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (project / "build").symlink_to(project / "built")
    assert cli.main(["clean"]) == 0
    assert all(path.exists() for path in kept)
    out = capsys.readouterr().out
    assert "removed" not in out and out.count("kept") == 2


def test_publish_says_what_it_wrote_and_what_jumped(monkeypatch, capsys):
    written, jumped = [PROJECT / "README.md", PROJECT / "RESULTS.md"], ["README: 1 [0, 2] became 3 [2, 4]"]

    def publish(tell):
        for jump in jumped:
            tell(jump)
        return list(written)

    monkeypatch.setattr(commands.results, "publish", publish)
    assert cli.main(["publish"]) == 0
    assert capsys.readouterr().out.splitlines() == [*jumped, *(f"written: {path}" for path in written)]
    written.clear()
    jumped.clear()
    assert cli.main(["publish"]) == 0 and "up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text,code", [('"""Says what it is."""\n', 0), ("import os\n", 1), ("x  = 1\n", 1), ('x: int = ""\n', 1)]
)
def test_lint_fails_on_what_its_tools_find(text, code, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    (tmp_path / "saliency_lib").mkdir()
    (tmp_path / "saliency_lib" / "a.py").write_text(text)
    assert cli.main(["lint"]) == code


def test_lint_fails_where_a_tool_is_killed(monkeypatch):
    codes = iter([0, 0, -9])
    monkeypatch.setattr(cli, "python", lambda *words: next(codes))
    assert cli.main(["lint"]) == 1


@pytest.mark.slow
def test_the_project_is_clean_by_its_own_lint():
    assert cli.main(["lint"]) == 0


def test_where_data_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("SALIENCY_DATA", raising=False)
    assert data_root() == PROJECT / "data"
    monkeypatch.setenv("SALIENCY_DATA", str(tmp_path))
    assert data_root() == tmp_path and data_root("x").name == "x"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file"
    with pytest.raises(ZeroDivisionError), atomic(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    with atomic(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole" and len(list(target.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/below/x"), atomic(tmp_path / "file" / "below" / "x"):
        pass


def test_lab_listens_on_loopback_and_keeps_committed_figures_safe(monkeypatch):
    seen = {}

    def run(command, *, env, **_):
        seen.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cli.subprocess, "run", run)
    assert cli.main(["lab", "--no-browser"]) == 0
    assert "--ServerApp.ip=127.0.0.1" in seen["command"] and seen["command"][-1] == "--no-browser"
    assert not any("token" in word for word in seen["command"]), "Jupyter's own token protects it"
    assert seen["env"]["SALIENCY_FIGURES"] == str(PROJECT / "build" / "lab")


def test_the_lab_server_is_on_loopback_only_and_wants_its_token(tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    words = ["lab", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    command = [sys.executable, "-W", "ignore", "-m", "saliency_lib", *words]
    with subprocess.Popen(
        command, cwd=PROJECT, env=os.environ | own, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        try:
            shown = next(word for line in server.stderr for word in line.split() if "?token=" in word)
            address, token = shown.split("/lab?token=")
            assert address == f"http://127.0.0.1:{port}" or address == f"http://localhost:{port}"
            deadline = time.monotonic() + 60  # the address is shown a moment before it answers
            while not answers("127.0.0.1", port) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert [address for address in addresses() if answers(address, port)] == ["127.0.0.1"]
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the machine has
            with pytest.raises(urllib.error.HTTPError, match="403"):
                direct.open(f"http://127.0.0.1:{port}/api/contents", timeout=30)
            with direct.open(f"http://127.0.0.1:{port}/api/contents?token={token}", timeout=30) as reply:
                assert reply.status == 200 and b"02_gradient_snr" in reply.read()
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def answers(address, port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def addresses():
    """Those of IPv4 under which this machine can be reached."""
    found = {a.address for many in psutil.net_if_addrs().values() for a in many if a.family == socket.AF_INET}
    return found | {"127.0.0.1"}
