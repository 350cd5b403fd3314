"""`Pages` against a plain dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distributed_core.machines.pages import Pages

KEYS = st.integers(min_value=-5, max_value=20_000)


@given(st.lists(st.tuples(st.sampled_from(["set", "pop", "get"]), KEYS), max_size=60))
def test_like_a_dict(steps: list[tuple[str, int]]) -> None:
    pages: Pages[int] = Pages()
    plain: dict[int, int] = {}
    for number, (step, key) in enumerate(steps):
        if step == "set":
            pages[key] = plain[key] = number
        elif step == "pop":
            assert pages.pop(key, None) == plain.pop(key, None)
        else:
            assert pages.get(key) == plain.get(key)
            assert (key in pages) is (key in plain)
        assert len(pages) == len(plain)
        assert bool(pages) is bool(plain)
        assert sorted(pages.items()) == sorted(plain.items())
    assert list(reversed(pages)) == list(pages)[::-1]


def test_counted_keys_keep_their_order() -> None:
    pages: Pages[int] = Pages()
    for key in range(10_000):
        pages[key] = key
    for key in range(0, 10_000, 3):
        del pages[key]
    assert list(pages) == [key for key in range(10_000) if key % 3]
