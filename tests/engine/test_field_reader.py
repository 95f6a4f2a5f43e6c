"""A mapping is read field by field, and every wrong field is found."""

from typing import Annotated

import msgspec
from msgspec import Meta

from engine.model.field_reader import read_fields


class Shape(msgspec.Struct, rename="camel"):
    first_name: str
    ages: list[int] = []
    share: Annotated[float, Meta(le=1)] = 0
    port: int = 80


FIELDS = msgspec.structs.fields(Shape)


def read(values, texts=None):
    found, problems = read_fields(FIELDS, values, texts)
    return found, [(each.field.name, each.sentence, each.path) for each in problems]


def test_what_is_right_is_read_by_the_fields_names_and_what_is_not_there_is_left_out():
    assert read({"firstName": "Ada", "ages": [1]}) == ({"first_name": "Ada", "ages": [1]}, [])


def test_every_wrong_field_is_found_in_the_order_of_the_fields():
    assert read({"port": "x", "share": 2, "ages": [1, "b"]}) == (
        {},
        [
            ("first_name", "", ""),
            ("ages", "expected int, got str", "[1]"),
            ("share", "expected float <= 1.0", ""),
            ("port", "expected int, got str", ""),
        ],
    )


def test_texts_go_before_values_and_may_be_of_any_type():
    values = {"firstName": "Ada", "port": 1}
    assert read(values, texts={"port": "8080"})[0] == {"first_name": "Ada", "port": 8080}
    assert read(values, texts={"port": "http"})[1] == [("port", "expected int, got str", "")]
