import pytest

from rqrec.data.templates import clean, fields_of, fill

TEMPLATE = "{title}; Brand: {brand}; {price} of {stock}"


@pytest.mark.parametrize("missing", [None, "", "  ", "nan", "NaN", float("nan"), "None", [], [[None]]])
def test_parts_with_missing_fields_are_omitted(missing: object) -> None:
    assert fill(TEMPLATE, {"title": "A", "brand": missing, "price": 1, "stock": 2}) == "A; 1 of 2"
    assert fill(TEMPLATE, {"title": "A", "brand": "B", "price": 1, "stock": missing}) == "A; Brand: B"
    assert fill(TEMPLATE, {"title": missing}) == ""


def test_a_field_is_cleaned() -> None:
    assert clean(" L&#39;Or &amp;\n Co ") == "L'Or & Co"
    assert clean([["A", "B"], ["A", "C &amp; D"]]) == "A, B, C & D"
    assert clean("{title}") == "{title}"
    assert clean("<b>Tom &amp; Jerry</b><br/>a &lt;p class='x'&gt;vector<T>, 3 < 4 > 2<!-- no -->") == (
        "Tom & Jerry a vector<T>, 3 < 4 > 2"
    )
    assert fill("{a b}", {"a b": 1}) == "1"
    assert fill("{a}", {"a": "{b}", "b": "never"}) == "{b}"


@pytest.mark.parametrize("template", ["", "no field", "{open", "{a} {}", "{a {b}}"])
def test_an_invalid_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="is not valid: it needs fields in braces"):
        fields_of(template)


def test_the_fields_of_a_template() -> None:
    assert fields_of(TEMPLATE) == ("title", "brand", "price", "stock")
