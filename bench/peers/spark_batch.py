"""The job of `pinpipe batch` in Spark: reads a lake of JSON objects, cleans it, answers the
questions as CSV files.

    python spark_batch.py LAKE_FOLDER OUT_FOLDER [--median interpolated|lower]
"""

import argparse
import csv
import pathlib

from pyspark.sql import SparkSession

SCHEMAS = {
    "pin": """
        index INT, unique_id STRING, title STRING, description STRING, poster_name STRING, follower_count STRING,
        tag_list STRING, is_image_or_video STRING, image_src STRING, save_location STRING, category STRING
    """,  # noqa: E501
    "geo": "ind INT, timestamp STRING, latitude DOUBLE, longitude DOUBLE, country STRING",
    "user": "ind INT, first_name STRING, last_name STRING, age INT, date_joined STRING",
}

POST = r"""
WITH clean_pin AS (
    SELECT DISTINCT
        index AS ind,
        unique_id,
        CASE WHEN title NOT IN ('No Title Data Available', '') THEN title END AS title,
        CASE
            WHEN description NOT IN ('No description available Story format', 'No description available', 'Untitled', '')
            THEN description
        END AS description,
        CASE
            WHEN follower_count RLIKE '^[0-9]{1,12}\\z' THEN CAST(follower_count AS BIGINT)
            WHEN follower_count RLIKE '^[0-9]{1,11}[kK]\\z'
                THEN CAST(left(follower_count, length(follower_count) - 1) AS BIGINT) * 1000
            WHEN follower_count RLIKE '^[0-9]{1,11}[mM]\\z'
                THEN CAST(left(follower_count, length(follower_count) - 1) AS BIGINT) * 1000000
        END AS follower_count,
        CASE WHEN poster_name NOT IN ('User Info Error', '') THEN poster_name END AS poster_name,
        CASE WHEN tag_list NOT IN ('N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e', '') THEN tag_list END AS tag_list,
        is_image_or_video,
        CASE WHEN image_src NOT IN ('Image src error.', '') THEN image_src END AS image_src,
        regexp_replace(save_location, '^Local save in ', '') AS save_location,
        category
    FROM raw_pin
),
clean_geo AS (
    SELECT DISTINCT ind, country, array(latitude, longitude) AS coordinates, try_cast(timestamp AS TIMESTAMP) AS timestamp
    FROM raw_geo
),
clean_user AS (
    SELECT DISTINCT ind, first_name || ' ' || last_name AS user_name, age, try_cast(date_joined AS TIMESTAMP) AS date_joined
    FROM raw_user
)
SELECT
    ind,
    category,
    poster_name,
    follower_count,
    country,
    year(timestamp) AS post_year,
    user_name,
    age,
    date_joined,
    year(date_joined) AS join_year,
    CASE
        WHEN age BETWEEN 18 AND 24 THEN '18-24'
        WHEN age BETWEEN 25 AND 35 THEN '25-35'
        WHEN age BETWEEN 36 AND 50 THEN '36-50'
        WHEN age > 50 THEN '50+'
    END AS age_group
FROM clean_pin
JOIN clean_geo USING (ind)
JOIN clean_user USING (ind)
"""  # noqa: E501

TOP_CATEGORY = """
    SELECT {by}, category, category_count
    FROM (
        SELECT {by}, category, count(*) AS category_count, rank() OVER (PARTITION BY {by} ORDER BY count(*) DESC) AS place
        FROM post
        WHERE {where}
        GROUP BY {by}, category
    )
    WHERE place = 1
    ORDER BY {by}, category
"""  # noqa: E501

MEDIAN = """
    SELECT {by}, {median} AS median_follower_count
    FROM post
    WHERE follower_count IS NOT NULL AND {where}
    GROUP BY {by}
    ORDER BY {by}
"""


def questions(median):
    def top_category(by, where):
        return TOP_CATEGORY.format(by=by, where=where)

    def median_followers(by, where):
        return MEDIAN.format(by=by, where=where, median=median)

    known = "follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL"
    joined = "join_year BETWEEN 2015 AND 2020"
    return {
        "top_category_by_country": top_category("country", "country IS NOT NULL"),
        "posts_by_category_and_year": """
            SELECT post_year, category, count(*) AS category_count
            FROM post
            WHERE post_year BETWEEN 2018 AND 2022
            GROUP BY post_year, category
            ORDER BY post_year, category_count DESC, category
        """,
        "top_category_by_year": top_category("post_year", "post_year BETWEEN 2018 AND 2022"),
        "top_user_by_country": f"""
            SELECT country, poster_name, follower_count
            FROM (
                SELECT
                    country, poster_name, max(follower_count) AS follower_count,
                    rank() OVER (PARTITION BY country ORDER BY max(follower_count) DESC) AS place
                FROM post
                WHERE {known}
                GROUP BY country, poster_name
            )
            WHERE place = 1
            ORDER BY country, poster_name
        """,
        "top_country_by_followers": f"""
            SELECT country, max(follower_count) AS follower_count
            FROM post
            WHERE {known}
            GROUP BY country
            HAVING max(follower_count) = (SELECT max(follower_count) FROM post WHERE {known})
            ORDER BY country
        """,
        "top_category_by_age_group": top_category("age_group", "age_group IS NOT NULL"),
        "median_followers_by_age_group": median_followers("age_group", "age_group IS NOT NULL"),
        "users_joined_by_year": f"""
            SELECT join_year, count(*) AS number_users_joined
            FROM (SELECT DISTINCT user_name, age, date_joined, join_year FROM post WHERE {joined})
            GROUP BY join_year
            ORDER BY join_year
        """,
        "median_followers_by_join_year": median_followers("join_year", joined),
        "median_followers_by_age_group_and_join_year": median_followers(
            "age_group, join_year", f"age_group IS NOT NULL AND {joined}"
        ),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lake", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--median", choices=["interpolated", "lower"], default="interpolated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    function = "percentile_cont" if arguments.median == "interpolated" else "percentile_disc"

    spark = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", False)
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.conf.set("spark.sql.shuffle.partitions", 2 * spark.sparkContext.defaultParallelism)
    for kind, schema in SCHEMAS.items():
        reader = (
            spark.read.schema(schema)
            .option("recursiveFileLookup", True)
            .option("pathGlobFilter", "*.json*")
        )
        reader.json(str(arguments.lake / "topics" / f"local.{kind}")).createOrReplaceTempView(
            f"raw_{kind}"
        )
    spark.sql(POST).cache().createOrReplaceTempView("post")

    median = f"CAST({function}(0.5) WITHIN GROUP (ORDER BY follower_count) AS DOUBLE)"
    for name, question in questions(median).items():
        answer = spark.sql(question)
        with open(arguments.out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(answer.columns)
            writer.writerows(answer.collect())
    spark.stop()


if __name__ == "__main__":
    main()
