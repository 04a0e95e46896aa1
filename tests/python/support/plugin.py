"""The order of the tests: files that take longest come first, so that parallel workers end
together.
"""

# Files by their duration on two cores, longest first; the others follow, in pytest's own order.
LONGEST_FIRST = ()


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))
