-- The median follower count of the posts of each age group.
-- The one middle value, or the two, of each group: an exact median without a function
-- that only one engine has.
SELECT m.age_group AS age_group, {median} AS median_follower_count
FROM (
    SELECT
        age_group,
        follower_count,
        row_number() OVER (PARTITION BY age_group ORDER BY follower_count) AS place,
        count(*) OVER (PARTITION BY age_group) AS places
    FROM post
    WHERE follower_count IS NOT NULL AND age_group IS NOT NULL
) m
WHERE 2 * m.place BETWEEN m.places AND m.places + 2
GROUP BY m.age_group
ORDER BY age_group
