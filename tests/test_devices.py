"""TensorFlow starts without a word on the terminal, and what it says when it fails is not lost."""

import os
import subprocess
import sys

import pytest

from audit.predict.devices import _stderr_to_log, prepare_tensorflow


def test_tensorflow_is_loaded_without_a_word():
    code = "from audit.predict.devices import prepare_tensorflow as p; p(); p(); import sys;"
    code += "assert 'tensorflow' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_it_does_nothing_once_tensorflow_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it again would fail
    prepare_tensorflow()


def test_native_output_comes_back_when_the_block_fails(capfd):
    with pytest.raises(RuntimeError), _stderr_to_log():
        os.write(2, b"the reason\n")
        raise RuntimeError
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err.split() == ["the", "reason", "afterwards"]


def test_native_output_of_a_block_that_works_is_kept_off_the_terminal(capfd):
    with _stderr_to_log():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""


def test_native_output_is_shown_where_there_is_no_room_to_keep_it(capfd, monkeypatch):
    def full(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with _stderr_to_log():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == "noise\n"
