"""What a run's settings read besides themselves: files of prompts."""

from __future__ import annotations

import pytest

from gsdistill.errors import BadFile
from gsdistill.runconfig import read_prompts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a red cube\n\n  a blue ring \n", ("a red cube", "a blue ring")),
        (b"\xef\xbb\xbf# animals\r\na corgi, 50% off #1\r\n   # none\r\n", ("a corgi, 50% off #1",)),
        ("ein Gr\u00fcner W\u00fcrfel".encode(), ("ein Gr\u00fcner W\u00fcrfel",)),
    ],
)
def test_each_line_of_a_file_is_a_prompt(content, expected, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(tmp_path / "prompts.txt") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"# a cube\n \n", "holds no prompt"),
        (b"caf\xe9", "is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_without_a_prompt_is_refused(content, message, tmp_path):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)
