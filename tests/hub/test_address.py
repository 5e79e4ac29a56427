"""hf://owner/name@revision: what is an address, and a sentence for what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmos.errors import UsageError
from mmmos.hub import Address, is_address, licence, parse


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner/name",
        "hf://owner/name@v1.0",
        "hf://an-owner_1/a.name-2@refs/pr/3",
        "hf://o/n@" + "0123456789" * 4,
        "hf://o/n@feature/x+y",
    ],
)
def test_an_address_is_read_and_written_the_same(text):
    assert is_address(text) and str(parse(text)) == text


def test_the_parts_of_an_address():
    assert parse("hf://owner/name") == Address("owner/name", "")
    assert parse("hf://owner/name@v1") == Address("owner/name", "v1")


@pytest.mark.parametrize(
    ("text", "wrong"),
    {
        "owner/name": "does not begin with hf://",
        "hf:/owner/name": "does not begin with hf://",
        "https://huggingface.co/owner/name": "does not begin with hf://",
        "hf://": "lacks the owner or the name",
        "hf://name": "lacks the owner or the name",
        "hf:///name": "lacks the owner or the name",
        "hf://owner/": "lacks the owner or the name",
        "hf://owner/name/": "lacks the owner or the name",
        "hf://owner/name/heads.safetensors": "names something inside a repository",
        "hf://datasets/owner/name": "leave out datasets/",
        "hf://models/owner/name@v1": "leave out models/",
        "hf://../name": "'..' is no name on the hub",
        "hf://owner/-name": "'-name' is no name on the hub",
        "hf://owner/na me": "'na me' is no name on the hub",
        "hf://owner/na--me": "'na--me' is no name on the hub",
        "hf://owner/name.git": "'name.git' is no name on the hub",
        "hf://owner/name?x=1": "is no name on the hub",
        "hf://owner/nämé": "is no name on the hub",
        "hf://owner/name\n": "is no name on the hub",
        "hf://owner/" + "n" * 96: "have 102 characters, and the hub allows 96",
        "hf://owner/name@": "nothing stands after the @",
        "hf://owner/name@../x": "is no branch, tag or commit",
        "hf://owner/name@a..b": "is no branch, tag or commit",
        "hf://owner/name@a//b": "is no branch, tag or commit",
        "hf://owner/name@v1@v2": "is no branch, tag or commit",
        "hf://owner/name@-x": "is no branch, tag or commit",
        "hf://owner/name@x.lock": "is no branch, tag or commit",
        "hf://owner/name@" + "x" * 201: "is no branch, tag or commit",
    }.items(),
)
def test_what_is_no_address_is_said(text, wrong):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert wrong in str(caught.value) and "Write hf://owner/name, or hf://owner/name@revision" in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_sentence(text):
    try:
        address = parse("hf://" + text)
    except UsageError:
        return
    assert str(address) == "hf://" + text


@pytest.mark.parametrize(
    ("card", "found"),
    {
        "---\nlicense: mit\n---\n# A": "mit",
        "---\ntags:\n- a\nlicense:  'cc-by-4.0' \n---\n": "cc-by-4.0",
        "---\r\nlicense: mit\r\n---\r\n": "mit",
        "# A\n---\nlicense: mit\n---\n": "",
        "---\ntags: [license]\n---\nlicense: mit\n": "",
        "---\nlicense:\n---\n": "",
        "---\nlicense: mit\n": "",
        "": "",
    }.items(),
)
def test_the_licence_of_a_card_is_that_of_its_front_matter(card, found):
    assert licence(card) == found
