-- The median follower count of the posts of users by age group and year joined.
-- The one middle value, or the two, of each group: an exact median without a function
-- that only one engine has.
SELECT m.age_group AS age_group, m.join_year AS join_year, {median} AS median_follower_count
FROM (
    SELECT
        age_group,
        join_year,
        follower_count,
        row_number() OVER (PARTITION BY age_group, join_year ORDER BY follower_count) AS place,
        count(*) OVER (PARTITION BY age_group, join_year) AS places
    FROM post
    WHERE follower_count IS NOT NULL AND age_group IS NOT NULL AND join_year BETWEEN 2015 AND 2020
) m
WHERE 2 * m.place BETWEEN m.places AND m.places + 2
GROUP BY m.age_group, m.join_year
ORDER BY age_group, join_year
