"""The job of `pinpipe batch` in DuckDB: reads a lake of JSON objects, cleans it, answers the
questions as CSV files.

    python duckdb_batch.py LAKE_FOLDER OUT_FOLDER [--median interpolated|lower]
"""

import argparse
import pathlib

import duckdb

POST = """
CREATE TEMP TABLE post AS
WITH clean_pin AS (
    SELECT DISTINCT
        "index" AS ind,
        unique_id,
        CASE WHEN title NOT IN ('No Title Data Available', '') THEN title END AS title,
        CASE
            WHEN description NOT IN ('No description available Story format', 'No description available', 'Untitled', '')
            THEN description
        END AS description,
        CASE
            WHEN regexp_full_match(follower_count, '[0-9]{1,12}') THEN CAST(follower_count AS BIGINT)
            WHEN regexp_full_match(follower_count, '[0-9]{1,11}[kK]') THEN CAST(follower_count[:-2] AS BIGINT) * 1000
            WHEN regexp_full_match(follower_count, '[0-9]{1,11}[mM]') THEN CAST(follower_count[:-2] AS BIGINT) * 1000000
        END AS follower_count,
        CASE WHEN poster_name NOT IN ('User Info Error', '') THEN poster_name END AS poster_name,
        CASE WHEN tag_list NOT IN ('N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e', '') THEN tag_list END AS tag_list,
        is_image_or_video,
        CASE WHEN image_src NOT IN ('Image src error.', '') THEN image_src END AS image_src,
        regexp_replace(save_location, '^Local save in ', '') AS save_location,
        category
    FROM read_json(
        getvariable('lake') || '/topics/local.pin/**/*.json*',
        format = 'newline_delimited',
        columns = {
            index: 'INTEGER', unique_id: 'VARCHAR', title: 'VARCHAR', description: 'VARCHAR', poster_name: 'VARCHAR',
            follower_count: 'VARCHAR', tag_list: 'VARCHAR', is_image_or_video: 'VARCHAR', image_src: 'VARCHAR',
            save_location: 'VARCHAR', category: 'VARCHAR'
        }
    )
),
clean_geo AS (
    SELECT DISTINCT ind, country, [latitude, longitude] AS coordinates, TRY_CAST("timestamp" AS TIMESTAMP) AS "timestamp"
    FROM read_json(
        getvariable('lake') || '/topics/local.geo/**/*.json*',
        format = 'newline_delimited',
        columns = {ind: 'INTEGER', "timestamp": 'VARCHAR', latitude: 'DOUBLE', longitude: 'DOUBLE', country: 'VARCHAR'}
    )
),
clean_user AS (
    SELECT DISTINCT ind, first_name || ' ' || last_name AS user_name, age, TRY_CAST(date_joined AS TIMESTAMP) AS date_joined
    FROM read_json(
        getvariable('lake') || '/topics/local.user/**/*.json*',
        format = 'newline_delimited',
        columns = {ind: 'INTEGER', first_name: 'VARCHAR', last_name: 'VARCHAR', age: 'INTEGER', date_joined: 'VARCHAR'}
    )
)
SELECT
    ind,
    category,
    poster_name,
    follower_count,
    country,
    year("timestamp") AS post_year,
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

QUESTIONS = {
    "top_category_by_country": """
        SELECT country, category, count(*) AS category_count
        FROM post
        WHERE country IS NOT NULL
        GROUP BY country, category
        QUALIFY rank() OVER (PARTITION BY country ORDER BY category_count DESC) = 1
        ORDER BY country, category
    """,
    "posts_by_category_and_year": """
        SELECT post_year, category, count(*) AS category_count
        FROM post
        WHERE post_year BETWEEN 2018 AND 2022
        GROUP BY post_year, category
        ORDER BY post_year, category_count DESC, category
    """,
    "top_category_by_year": """
        SELECT post_year, category, count(*) AS category_count
        FROM post
        WHERE post_year BETWEEN 2018 AND 2022
        GROUP BY post_year, category
        QUALIFY rank() OVER (PARTITION BY post_year ORDER BY category_count DESC) = 1
        ORDER BY post_year, category
    """,
    "top_user_by_country": """
        SELECT country, poster_name, max(follower_count) AS follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL
        GROUP BY country, poster_name
        QUALIFY rank() OVER (PARTITION BY country ORDER BY max(follower_count) DESC) = 1
        ORDER BY country, poster_name
    """,
    "top_country_by_followers": """
        SELECT country, max(follower_count) AS follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL
        GROUP BY country
        QUALIFY rank() OVER (ORDER BY max(follower_count) DESC) = 1
        ORDER BY country
    """,
    "top_category_by_age_group": """
        SELECT age_group, category, count(*) AS category_count
        FROM post
        WHERE age_group IS NOT NULL
        GROUP BY age_group, category
        QUALIFY rank() OVER (PARTITION BY age_group ORDER BY category_count DESC) = 1
        ORDER BY age_group, category
    """,
    "median_followers_by_age_group": """
        SELECT age_group, CAST({median}(follower_count, 0.5) AS DOUBLE) AS median_follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND age_group IS NOT NULL
        GROUP BY age_group
        ORDER BY age_group
    """,
    "users_joined_by_year": """
        SELECT join_year, count(*) AS number_users_joined
        FROM (SELECT DISTINCT user_name, age, date_joined, join_year FROM post WHERE join_year BETWEEN 2015 AND 2020)
        GROUP BY join_year
        ORDER BY join_year
    """,  # noqa: E501
    "median_followers_by_join_year": """
        SELECT join_year, CAST({median}(follower_count, 0.5) AS DOUBLE) AS median_follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND join_year BETWEEN 2015 AND 2020
        GROUP BY join_year
        ORDER BY join_year
    """,
    "median_followers_by_age_group_and_join_year": """
        SELECT age_group, join_year, CAST({median}(follower_count, 0.5) AS DOUBLE) AS median_follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND age_group IS NOT NULL AND join_year BETWEEN 2015 AND 2020
        GROUP BY age_group, join_year
        ORDER BY age_group, join_year
    """,  # noqa: E501
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lake")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--median", choices=["interpolated", "lower"], default="interpolated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    median = "quantile_cont" if arguments.median == "interpolated" else "quantile_disc"

    with duckdb.connect() as connection:
        connection.execute("SET VARIABLE lake = ?", [arguments.lake])
        connection.execute(POST)
        for name, question in QUESTIONS.items():
            connection.sql(question.format(median=median)).write_csv(
                str(arguments.out / f"{name}.csv")
            )


if __name__ == "__main__":
    main()
