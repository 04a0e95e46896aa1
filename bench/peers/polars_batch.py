"""The job of `pinpipe batch` in Polars: reads a lake of JSON objects, cleans it, answers the
questions as CSV files.

    python polars_batch.py LAKE_FOLDER OUT_FOLDER [--median interpolated|lower]
"""

import argparse
import pathlib

import polars as pl
from polars import col

PIN = {
    "index": pl.Int32,
    "unique_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "poster_name": pl.String,
    "follower_count": pl.String,
    "tag_list": pl.String,
    "is_image_or_video": pl.String,
    "image_src": pl.String,
    "save_location": pl.String,
    "category": pl.String,
}
GEO = {
    "ind": pl.Int32,
    "timestamp": pl.String,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "country": pl.String,
}
USER = {
    "ind": pl.Int32,
    "first_name": pl.String,
    "last_name": pl.String,
    "age": pl.Int32,
    "date_joined": pl.String,
}


def read(lake, kind, schema):
    return pl.scan_ndjson(lake / "topics" / f"local.{kind}" / "**" / "*.json*", schema=schema)


def known(name, *markers):
    """Returns the column without the markers of missing values."""
    return pl.when(~col(name).is_in([*markers, ""])).then(name)


def instant(name):
    return (
        col(name)
        .str.replace("T", " ", literal=True)
        .str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    )


def clean_pin(raw):
    count = col("follower_count")
    number = count.str.extract("^([0-9]+)[kKmM]?$").cast(pl.Int64, strict=False)
    unit = (
        pl.when(count.str.contains("[kK]$"))
        .then(1_000)
        .when(count.str.contains("[mM]$"))
        .then(1_000_000)
        .otherwise(1)
    )
    return raw.select(
        col("index").alias("ind"),
        "unique_id",
        known("title", "No Title Data Available"),
        known(
            "description",
            "No description available Story format",
            "No description available",
            "Untitled",
        ),
        pl.when(count.str.len_chars() <= 12).then(number * unit).alias("follower_count"),
        known("poster_name", "User Info Error"),
        known("tag_list", "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e"),
        "is_image_or_video",
        known("image_src", "Image src error."),
        col("save_location").str.strip_prefix("Local save in "),
        "category",
    ).unique()


def clean_geo(raw):
    coordinates = pl.concat_arr("latitude", "longitude").alias("coordinates")
    return raw.select("ind", "country", coordinates, instant("timestamp")).unique()


def clean_user(raw):
    user_name = pl.concat_str("first_name", "last_name", separator=" ").alias("user_name")
    return raw.select("ind", user_name, "age", instant("date_joined")).unique()


def post(pin, geo, user):
    age_group = (
        pl.when(col("age").is_between(18, 24))
        .then(pl.lit("18-24"))
        .when(col("age").is_between(25, 35))
        .then(pl.lit("25-35"))
        .when(col("age").is_between(36, 50))
        .then(pl.lit("36-50"))
        .when(col("age") > 50)
        .then(pl.lit("50+"))
    )
    return (
        pin.join(geo, on="ind")
        .join(user, on="ind")
        .select(
            "ind",
            "category",
            "poster_name",
            "follower_count",
            "country",
            col("timestamp").dt.year().alias("post_year"),
            "user_name",
            "age",
            "date_joined",
            col("date_joined").dt.year().alias("join_year"),
            age_group.alias("age_group"),
        )
    )


def categories(posts, by):
    return posts.group_by(by, "category").agg(pl.len().alias("category_count"))


def top(frame, by, count):
    """Returns the rows with the highest count of each group, ties included."""
    return frame.filter(col(count) == col(count).max().over(by))


def questions(posts, median):
    in_years = posts.filter(col("post_year").is_between(2018, 2022))
    joined = posts.filter(col("join_year").is_between(2015, 2020))
    aged = posts.drop_nulls("age_group")
    followed = posts.drop_nulls(["follower_count", "poster_name", "country"])
    most_followed = followed.group_by("country", "poster_name").agg(col("follower_count").max())
    countries = followed.group_by("country").agg(col("follower_count").max())
    by_year = categories(in_years, "post_year")
    middle = (
        col("follower_count").median()
        if median == "interpolated"
        else col("follower_count").quantile(0.5, "lower")
    )

    def medians(frame, *by):
        return (
            frame.drop_nulls("follower_count")
            .group_by(by)
            .agg(middle.alias("median_follower_count"))
            .sort(by)
        )

    return {
        "top_category_by_country": top(
            categories(posts.drop_nulls("country"), "country"), "country", "category_count"
        ).sort("country", "category"),
        "posts_by_category_and_year": by_year.sort(
            "post_year", "category_count", "category", descending=[False, True, False]
        ),
        "top_category_by_year": top(by_year, "post_year", "category_count").sort(
            "post_year", "category"
        ),
        "top_user_by_country": top(most_followed, "country", "follower_count").sort(
            "country", "poster_name"
        ),
        "top_country_by_followers": countries.filter(
            col("follower_count") == col("follower_count").max()
        ).sort("country"),
        "top_category_by_age_group": top(
            categories(aged, "age_group"), "age_group", "category_count"
        ).sort("age_group", "category"),
        "median_followers_by_age_group": medians(aged, "age_group"),
        "users_joined_by_year": joined.unique(["user_name", "age", "date_joined", "join_year"])
        .group_by("join_year")
        .agg(pl.len().alias("number_users_joined"))
        .sort("join_year"),
        "median_followers_by_join_year": medians(joined, "join_year"),
        "median_followers_by_age_group_and_join_year": medians(
            joined.drop_nulls("age_group"), "age_group", "join_year"
        ),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lake", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--median", choices=["interpolated", "lower"], default="interpolated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    posts = post(
        clean_pin(read(arguments.lake, "pin", PIN)),
        clean_geo(read(arguments.lake, "geo", GEO)),
        clean_user(read(arguments.lake, "user", USER)),
    )
    # Collected once: otherwise each question would read the lake again.
    posts = posts.collect(engine="streaming").lazy()
    answers = questions(posts, arguments.median)
    pl.collect_all(
        [
            answer.sink_csv(arguments.out / f"{name}.csv", lazy=True)
            for name, answer in answers.items()
        ],
        engine="streaming",
    )


if __name__ == "__main__":
    main()
