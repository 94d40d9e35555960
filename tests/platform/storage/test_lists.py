"""Lists in statements come in few lengths: what is prepared for each is kept."""

import re
from pathlib import Path

from hivemesh_platform.storage import transaction
from hivemesh_platform.storage.transaction import filled_up, listed

SOURCE = Path(transaction.__file__).parents[1]
MARK_EACH = re.compile(r"""["']\?["'] (?:\*|for)""")
SEVERAL_ROWS = "storage/sqlite.py"  # fills up in its own way: no row may come twice


def test_a_list_is_filled_up_with_its_last_value():
    assert filled_up([1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5, 5, 5, 5]
    assert filled_up([]) == []
    assert listed(["a"]) == ("?", ["a"])
    assert listed(["a", "b", "c"]) == ("?, ?, ?, ?", ["a", "b", "c", "c"])


def test_lists_of_up_to_500_values_make_ten_statements():
    lengths = {len(filled_up("x" * length)) for length in range(1, 501)}
    assert lengths == {2**power for power in range(10)}


def test_no_module_makes_a_mark_for_each_value():
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if MARK_EACH.search(path.read_text())
    }
    assert found <= {"storage/transaction.py", SEVERAL_ROWS}
