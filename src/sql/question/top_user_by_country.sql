-- The poster with the most followers in each country. Ties are kept.
SELECT DISTINCT r.country AS country, r.poster_name AS poster_name, r.follower_count AS follower_count
FROM (
    SELECT
        country,
        poster_name,
        follower_count,
        rank() OVER (PARTITION BY country ORDER BY follower_count DESC) AS place
    FROM post
    WHERE follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL
) r
WHERE r.place = 1
ORDER BY country, poster_name
