import pytest

from kaf.choices import check_choice


def test_a_name_of_the_list_is_accepted():
    check_choice("fruit", "pear", ("apple", "pear"))


@pytest.mark.parametrize("given, message", [
    ("pearr", "unknown fruit 'pearr'; choose one of apple, pear; did you mean 'pear'"),
    ("PEAR", "unknown fruit 'PEAR'; choose one of apple, pear; did you mean 'pear'"),
    ("grape-vine", "unknown fruit 'grape-vine'; choose one of apple, pear$"),
    (None, "unknown fruit None; choose one of apple, pear$"),
])
def test_another_one_is_refused_with_what_there_is(given, message):
    with pytest.raises(ValueError, match=message):
        check_choice("fruit", given, {"apple": 1, "pear": 2})
