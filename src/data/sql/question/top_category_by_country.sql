-- Most popular category in each country. Ties are kept.
SELECT r.country AS country, r.category AS category, r.category_count AS category_count
FROM (
    SELECT
        c.country AS country,
        c.category AS category,
        c.category_count AS category_count,
        rank() OVER (PARTITION BY c.country ORDER BY c.category_count DESC) AS place
    FROM (
        SELECT country, category, count(*) AS category_count
        FROM post
        WHERE country IS NOT NULL
        GROUP BY country, category
    ) c
) r
WHERE r.place = 1
ORDER BY country, category
