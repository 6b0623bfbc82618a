import pytest

from smallpress.engine.pages import ROOT_KEY, PagePool, page_key


def test_a_page_goes_from_blank_to_held_and_back():
    pool = PagePool(n_pages=3, page_size=4)
    page = pool.allocate()
    assert (pool.n_held, pool.n_available) == (1, 2)
    pool.release(page)
    assert (pool.n_held, pool.n_available) == (0, 3)
    pool.check_integrity([])


def test_a_page_held_twice_is_free_after_two_releases():
    pool = PagePool(3, 4)
    page = pool.allocate()
    pool.hold(page)
    pool.check_integrity([[page], [page]])
    pool.release(page)
    pool.check_integrity([[page]])
    pool.release(page)
    pool.check_integrity([])


def test_a_published_page_is_found_while_held_and_after_it_was_freed():
    pool = PagePool(3, 4)
    key = page_key(ROOT_KEY, [1, 2, 3, 4])
    page = pool.allocate()
    pool.publish(page, key)
    assert pool.find(key) == page
    pool.release(page)
    assert pool.find(key) == page and pool.is_kept(page) and pool.n_available == 3
    pool.hold(page)
    pool.check_integrity([[page]])


def test_of_two_equal_pages_the_first_stays_the_known_one():
    pool = PagePool(3, 4)
    first, second = pool.allocate(), pool.allocate()
    pool.publish(first, b"k")
    pool.publish(second, b"k")
    assert pool.find(b"k") == first
    pool.release(first)
    pool.release(second)
    pool.check_integrity([])


def test_blank_pages_are_used_before_kept_ones_and_of_those_the_one_freed_longest_ago():
    pool = PagePool(3, 4)
    old, new = pool.allocate(), pool.allocate()
    for page, key in ((old, b"old"), (new, b"new")):
        pool.publish(page, key)
        pool.release(page)
    assert pool.allocate() not in (old, new)
    assert pool.allocate() == old
    assert pool.find(b"old") is None and pool.find(b"new") == new


def test_after_forgetting_nothing_is_found_and_held_pages_become_blank_when_released():
    pool = PagePool(3, 4)
    held, kept = pool.allocate(), pool.allocate()
    for page, key in ((held, b"held"), (kept, b"kept")):
        pool.publish(page, key)
    pool.release(kept)
    pool.forget()
    assert pool.find(b"held") is None and pool.find(b"kept") is None
    pool.release(held)
    assert not pool.is_kept(held) and pool.n_available == 3
    pool.check_integrity([])


def test_a_key_names_the_whole_beginning_not_just_its_own_page():
    assert page_key(page_key(ROOT_KEY, [1]), [2]) == page_key(page_key(ROOT_KEY, [1]), [2])
    assert page_key(page_key(ROOT_KEY, [1]), [2]) != page_key(page_key(ROOT_KEY, [3]), [2])
    assert page_key(ROOT_KEY, [1, 2]) != page_key(page_key(ROOT_KEY, [1]), [2])


@pytest.mark.parametrize("tables", [[], [[0], [0]], [[0], [1]], [[0, 0]]])
def test_books_that_do_not_add_up_are_noticed(tables: list[list[int]]):
    pool = PagePool(3, 4)
    assert pool.allocate() == 0
    with pytest.raises(AssertionError):
        pool.check_integrity(tables)
