//! The report as one self-contained HTML page: charts, answers, data quality, counts.

pub mod chart;
pub mod escape;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::base::output::table::thousands;
use crate::stages::batch::answer::Answer;
use crate::stages::batch::page::chart::{Bar, Line};
use crate::stages::batch::page::escape::escaped;
use crate::stages::batch::report::BatchReport;

/// Maximum number of countries in the chart; the table of the answer has all of them.
const SHOWN_COUNTRIES: usize = 25;

/// Renders the page.
pub fn render(report: &BatchReport) -> String {
    let mut body = format!(
        "<h1>Pinterest posts</h1><p class=\"about\">Source: {}. Created on {} with pinpipe {}.</p>",
        escaped(&report.lake),
        chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"),
        env!("CARGO_PKG_VERSION"),
    );
    for (title, draw) in CHARTS {
        if let Some(chart) = draw(title, report) {
            let _ = write!(body, "<h2>{title}</h2>{chart}");
        }
    }
    body.push_str("<h2>Answers to the questions</h2>");
    for answer in &report.answers {
        let numeric: Vec<bool> = (0..answer.columns.len())
            .map(|column| {
                answer.rows.iter().all(|row| row[column].is_number() || row[column].is_null())
            })
            .collect();
        let rows = answer.rows.iter().map(|row| row.iter().map(cell_text).collect());
        let _ = write!(
            body,
            "<details><summary>{} ({} rows)</summary><div class=\"scroll\">{}</div></details>",
            escaped(&answer.title),
            thousands(answer.rows.len() as u64),
            table(&answer.columns, &numeric, rows),
        );
    }
    body.push_str("<h2>Records and rows of this run</h2>");
    let columns = [
        "record kind",
        "objects in the lake",
        "objects read",
        "records read",
        "rejected records",
        "duplicates",
        "new rows",
        "rows in total",
    ];
    let rows = report.inputs.iter().map(|input| {
        let counts = [
            input.objects_in_lake,
            input.objects,
            input.records,
            input.rejects,
            input.duplicates,
            input.new_rows,
            input.rows,
        ];
        std::iter::once(input.kind.name().to_string()).chain(counts.map(thousands)).collect()
    });
    body.push_str(&table(&columns, &[&[false][..], &[true; 7]].concat(), rows));
    body.push_str("<h2>Data quality of the records of this run</h2>");
    let columns = [
        "record kind",
        "column",
        "values",
        "empty (null)",
        "marked as unknown",
        "changed by cleaning",
    ];
    let rows = report.quality.iter().filter(|quality| quality.values > 0).map(|quality| {
        let share = |count: u64| {
            format!("{} ({:.1} %)", thousands(count), 100.0 * count as f64 / quality.values as f64)
        };
        vec![
            quality.kind.name().to_string(),
            quality.column.to_string(),
            thousands(quality.values),
            share(quality.nulls),
            share(quality.marked),
            share(quality.changed),
        ]
    });
    body.push_str(&table(&columns, &[false, false, true, true, true, true], rows));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Pinterest posts</title><style>{}</style></head><body>{body}</body></html>\n",
        include_str!("style.css"),
    )
}

/// Name of the answer that contains every category.
const YEARS: &str = "posts_by_category_and_year";

/// Draws a chart; `None` if the report does not contain its answer.
type Draw = fn(&str, &BatchReport) -> Option<String>;

const CHARTS: [(&str, Draw); 3] = [
    ("The most popular category in each country", countries),
    ("Posts of each category by year", years),
    ("Median follower count by age group and year joined", followers),
];

fn answer<'a>(report: &'a BatchReport, name: &str) -> Option<&'a Answer> {
    report.answers.iter().find(|answer| answer.name == name && !answer.rows.is_empty())
}

fn countries(title: &str, report: &BatchReport) -> Option<String> {
    let answer = answer(report, "top_category_by_country")?;
    let mut rows: Vec<(String, String, f64)> = answer
        .rows
        .iter()
        .map(|row| (cell_text(&row[0]), cell_text(&row[1]), row[2].as_f64().unwrap_or_default()))
        .collect();
    // Includes the categories of the chart of years, so that a category has the same colour in both
    // charts.
    let mut categories: Vec<String> = rows.iter().map(|row| row.1.clone()).collect();
    categories.extend(
        report
            .answers
            .iter()
            .filter(|answer| answer.name == YEARS)
            .flat_map(|answer| answer.rows.iter().map(|row| cell_text(&row[1]))),
    );
    categories.sort();
    categories.dedup();
    // The sort is stable: countries with equal counts stay in alphabetical order.
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    let bars: Vec<Bar> = rows
        .into_iter()
        .take(SHOWN_COUNTRIES)
        .map(|(country, category, count)| Bar {
            label: country,
            value: count,
            colour: chart::colour(
                categories.iter().position(|name| *name == category).unwrap_or_default(),
            ),
            note: format!("{category}, {}", thousands(count as u64)),
        })
        .collect();
    Some(chart::bars(title, &bars))
}

fn years(title: &str, report: &BatchReport) -> Option<String> {
    let answer = answer(report, YEARS)?;
    let (columns, lines) = pivot(
        answer.rows.iter().map(|row| (cell_text(&row[1]), cell_text(&row[0]), row[2].as_f64())),
    );
    Some(chart::lines(title, &columns, &lines))
}

fn followers(title: &str, report: &BatchReport) -> Option<String> {
    let answer = answer(report, "median_followers_by_age_group_and_join_year")?;
    let (columns, lines) = pivot(
        answer.rows.iter().map(|row| (cell_text(&row[0]), cell_text(&row[1]), row[2].as_f64())),
    );
    Some(chart::grid(title, &columns, &lines))
}

/// Pivots rows of name, column and value into sorted columns and one line for each name.
fn pivot(rows: impl Iterator<Item = (String, String, Option<f64>)>) -> (Vec<String>, Vec<Line>) {
    let mut cells: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for (name, column, value) in rows {
        cells.entry(name).or_default().extend(value.map(|value| (column, value)));
    }
    let mut columns: Vec<String> = cells.values().flat_map(|row| row.keys().cloned()).collect();
    columns.sort();
    columns.dedup();
    let lines = cells.into_iter().map(|(name, row)| Line {
        name,
        values: columns.iter().map(|column| row.get(column).copied()).collect(),
    });
    let lines = lines.collect();
    (columns, lines)
}

fn table(
    columns: &[impl AsRef<str>],
    numeric: &[bool],
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let cell = |tag: &str, column: usize, text: &str| {
        let class = if numeric[column] { " class=\"number\"" } else { "" };
        format!("<{tag}{class}>{}</{tag}>", escaped(text))
    };
    let head: String = columns
        .iter()
        .enumerate()
        .map(|(column, name)| cell("th", column, name.as_ref()))
        .collect();
    let mut body = String::new();
    for row in rows {
        body.push_str("<tr>");
        body.extend(row.iter().enumerate().map(|(column, text)| cell("td", column, text)));
        body.push_str("</tr>");
    }
    format!("<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
}

fn cell_text(value: &Value) -> String {
    value.as_str().map_or_else(
        || {
            if value.is_null() { String::new() } else { value.to_string() }
        },
        String::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_html_in_texts_of_posts() {
        assert_eq!(escaped("<script>\"&"), "&lt;script&gt;&quot;&amp;");
        let table = table(&["a"], &[false], std::iter::once(vec!["<b>".to_string()]));
        assert!(table.contains("<td>&lt;b&gt;</td>"), "{table}");
    }

    #[test]
    fn pivots_rows_into_lines_with_a_value_for_each_column() {
        let rows =
            [("art", "2018", Some(1.0)), ("art", "2020", Some(3.0)), ("quotes", "2018", Some(2.0))];
        let (columns, lines) = pivot(
            rows.into_iter()
                .map(|(name, column, value)| (name.to_string(), column.to_string(), value)),
        );
        assert_eq!(columns, ["2018", "2020"]);
        assert_eq!(lines[1].values, [Some(2.0), None]);
    }
}
