-- Most popular category in each age group. Ties are kept.
SELECT r.age_group AS age_group, r.category AS category, r.category_count AS category_count
FROM (
    SELECT
        c.age_group AS age_group,
        c.category AS category,
        c.category_count AS category_count,
        rank() OVER (PARTITION BY c.age_group ORDER BY c.category_count DESC) AS place
    FROM (
        SELECT age_group, category, count(*) AS category_count
        FROM post
        WHERE age_group IS NOT NULL
        GROUP BY age_group, category
    ) c
) r
WHERE r.place = 1
ORDER BY age_group, category
