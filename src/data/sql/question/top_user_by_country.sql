-- Poster with the most followers in each country. Ties are kept.
SELECT DISTINCT p.country AS country, p.poster_name AS poster_name, p.follower_count AS follower_count
FROM post p
JOIN (
    SELECT country, max(follower_count) AS follower_count
    FROM post
    WHERE follower_count IS NOT NULL AND poster_name IS NOT NULL AND country IS NOT NULL
    GROUP BY country
) m ON m.country = p.country AND m.follower_count = p.follower_count
WHERE p.poster_name IS NOT NULL
ORDER BY country, poster_name
