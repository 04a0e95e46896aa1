-- Most popular category in each year of the post. Ties are kept.
SELECT r.post_year AS post_year, r.category AS category, r.category_count AS category_count
FROM (
    SELECT
        c.post_year AS post_year,
        c.category AS category,
        c.category_count AS category_count,
        rank() OVER (PARTITION BY c.post_year ORDER BY c.category_count DESC) AS place
    FROM (
        SELECT post_year, category, count(*) AS category_count
        FROM post
        WHERE post_year BETWEEN 2018 AND 2022
        GROUP BY post_year, category
    ) c
) r
WHERE r.place = 1
ORDER BY post_year, category
