"""Results of the published run, converted for comparison with answers."""

AGE = {"+50": "50+"}


def floats(rows, keys):
    return sorted((*(r[k] for k in keys), float(r["median_follower_count"])) for r in rows)


def golden_floats(golden, number):
    return sorted(
        (*(AGE.get(str(c), str(c)) for c in row[:-1]), float(row[-1]))
        for row in golden["results"][number]["rows"]
    )
