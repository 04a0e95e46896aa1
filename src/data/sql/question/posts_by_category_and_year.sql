-- Number of posts by category and year of the post.
SELECT post_year, category, count(*) AS category_count
FROM post
WHERE post_year BETWEEN 2018 AND 2022
GROUP BY post_year, category
ORDER BY post_year, category_count DESC, category
