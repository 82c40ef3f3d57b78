"""Names of downloaded files: what a template may say, and that no name does harm or is given twice."""

from __future__ import annotations

from itertools import islice
from pathlib import PurePosixPath

import pytest

from comfy_serverless.cli.batches.names import NameTemplate, TakenNames, plain_part
from comfy_serverless.cli.batches.values import default_template, input_name
from comfy_serverless.errors import InvalidRequest


def name(template: str, **values: str) -> str:
    return str(NameTemplate.parse(template).name({key.replace("__", "."): value for key, value in values.items()}))


def test_fields_are_put_in_and_numbers_filled_up() -> None:
    assert name("{metadata.sku}_{input}", metadata__sku="A-1", input="fox") == "A-1_fox"
    assert name("{line:4}-{{x}}", line="12") == "0012-_x_"
    assert name("{line:04d}_{line:06}", line="12") == "0012_000012"
    assert name("{metadata.campaign}/{input}", metadata__campaign="autumn", input="fox") == "autumn/fox"


def test_a_label_may_be_called_anything() -> None:
    template = NameTemplate.parse("{metadata.a:b}_{metadata.c!d}_{metadata.e f}")
    assert template.fields == ["metadata.a:b", "metadata.c!d", "metadata.e f"]


@pytest.mark.parametrize("value", ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b", "C:\\x", "a\0b", "~/.ssh"])
def test_no_value_leads_out_of_the_folder(value: str) -> None:
    path = NameTemplate.parse("{input}").name({"input": value})
    assert len(path.parts) == 1
    assert not path.is_absolute()
    assert path.name not in {"", ".", ".."}
    assert not path.name.startswith(".")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("con", "_con"),
        ("COM1.x", "_COM1.x"),
        (".hidden", "_.hidden"),
        ("ends. ", "ends"),
        ("Grüße 日本", "Grüße 日本"),
        ('a:b*c?"<>|', "a_b_c_____"),
        ("x" * 400, "x" * 150),
    ],
)
def test_a_part_is_one_that_every_system_takes(text: str, plain: str) -> None:
    assert plain_part(text) == plain


@pytest.mark.parametrize("template", ["", "/x", "x/", "a//b", "../{input}", "{input", "}", "{}", "a/./b"])
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="--name"):
        NameTemplate.parse(template)


def test_a_field_that_no_line_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"Did you mean \{metadata.sku\}\? There are") as refused:
        NameTemplate.parse("{metadata.skew}").check({"metadata.sku": 3, "input": 3})
    assert refused.value.details == {"fields": ["input", "metadata.sku"]}


def test_what_a_line_lacks_is_told_and_named() -> None:
    template = NameTemplate.parse("{metadata.sku}_{line}")
    assert template.missing({"line": "3"}) == ["metadata.sku"]
    assert str(template.name({"line": "3"})) == "none_3"


def test_equal_names_get_numbers_in_whatever_case_letters_are() -> None:
    taken = TakenNames([PurePosixPath("gallery.html")])
    given = []
    for wanted in ("fox", "FOX", "fox", "gallery"):
        path = next(taken.candidates(PurePosixPath(wanted), ".png" if wanted != "gallery" else ".html"))
        taken.take(path)
        given.append(str(path))
    assert given == ["fox.png", "FOX-2.png", "fox-3.png", "gallery-2.html"]


def test_further_candidates_come_without_end() -> None:
    candidates = TakenNames().candidates(PurePosixPath("a/fox"), ".png")
    assert [str(path) for path in islice(candidates, 3)] == ["a/fox.png", "a/fox-2.png", "a/fox-3.png"]


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        ("s3://b/photos/080.jpg", "080"),
        ("s3://b/a%20b.jpg", "a%20b"),
        ("https://x.de/a%20b.jpg?sig=1", "a b"),
        ("data:image/png;base64,AAAA", ""),
        (["s3://b/1.png", "s3://b/2.png"], "1"),
        ([], ""),
        ("set/photo.png", "photo"),
        ("a red fox", ""),
    ],
)
def test_an_input_gives_the_name_of_its_file(address: str | list[str], stem: str) -> None:
    assert input_name(address) == stem


def test_files_are_called_as_their_inputs_if_all_lines_have_one() -> None:
    assert default_template({"input": 3}, 3) == "{input}"
    assert default_template({"input": 2}, 3) == "{line:4}_{output}"
    assert default_template({"input": 0}, 0) == "{line:4}_{output}"
