-- Median follower count of posts by age group and join year of the user.
-- Equal counts are aggregated first, so that few rows are sorted. The one or two middle values
-- of each group then give an exact median without an engine-specific function.
SELECT m.age_group AS age_group, m.join_year AS join_year, {median} AS median_follower_count
FROM (
    SELECT
        c.age_group AS age_group, c.join_year AS join_year,
        c.follower_count AS follower_count,
        c.posts AS posts,
        sum(c.posts) OVER (PARTITION BY c.age_group, c.join_year ORDER BY c.follower_count) AS posts_up_to_here,
        sum(c.posts) OVER (PARTITION BY c.age_group, c.join_year) AS posts_in_all
    FROM (
        SELECT age_group, join_year, follower_count, count(*) AS posts
        FROM post
        WHERE follower_count IS NOT NULL AND age_group IS NOT NULL AND join_year BETWEEN 2015 AND 2020
        GROUP BY age_group, join_year, follower_count
    ) c
) m
WHERE 2 * m.posts_up_to_here >= m.posts_in_all AND 2 * (m.posts_up_to_here - m.posts) <= m.posts_in_all
GROUP BY m.age_group, m.join_year
ORDER BY age_group, join_year
