-- Country whose top poster has the most followers. Ties are kept.
SELECT r.country AS country, r.follower_count AS follower_count
FROM (
    SELECT c.country AS country, c.follower_count AS follower_count, rank() OVER (ORDER BY c.follower_count DESC) AS place
    FROM (
        SELECT country, max(follower_count) AS follower_count
        FROM post
        WHERE follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL
        GROUP BY country
    ) c
) r
WHERE r.place = 1
ORDER BY country
