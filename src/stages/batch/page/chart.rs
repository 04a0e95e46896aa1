//! Charts as SVG, without any library or script.

use std::fmt::Write;

use crate::base::output::table::thousands;
use crate::stages::batch::page::escape::escaped;

/// Colours of the series: distinguishable with colour blindness, repeated after the last one.
const COLOURS: [&str; 13] = [
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5",
    "#9c6b4e", "#9498a0", "#1b9e77", "#d95f02", "#7570b3",
];
/// Width of every chart, in SVG units.
const WIDTH: f64 = 960.0;

/// Returns the colour of the n-th series, counted from 0.
pub fn colour(position: usize) -> &'static str {
    COLOURS[position % COLOURS.len()]
}

/// One bar of a bar chart; the note is the text to its right.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub colour: &'static str,
    pub note: String,
}

/// Draws horizontal bars, one below the other.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 20.0;
    const LABEL: f64 = 200.0;
    let longest = bars.iter().map(|bar| bar.value).fold(1.0, f64::max);
    let mut body = String::new();
    for (row, bar) in bars.iter().enumerate() {
        let y = row as f64 * ROW;
        let width = (WIDTH - LABEL - 220.0) * bar.value / longest;
        let _ = write!(
            body,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text><rect x="{LABEL}" y="{:.0}" width="{width:.1}" height="14" fill="{}"/><text x="{:.1}" y="{:.0}" class="soft">{}</text>"#,
            LABEL - 8.0,
            y + 14.0,
            escaped(&bar.label),
            y + 3.0,
            bar.colour,
            LABEL + width + 6.0,
            y + 14.0,
            escaped(&bar.note),
        );
    }
    svg(title, bars.len() as f64 * ROW + 4.0, &body)
}

/// One series: its name and its value at each position of the x axis; `None` if it has no value.
pub struct Line {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// Draws lines over a common x axis, with a legend at the right.
pub fn lines(title: &str, x_labels: &[String], lines: &[Line]) -> String {
    const HEIGHT: f64 = 320.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 190.0;
    let highest =
        lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(1.0, f64::max);
    let x = |position: usize| {
        LEFT + (WIDTH - LEFT - RIGHT) * position as f64 / (x_labels.len().max(2) - 1) as f64
    };
    let y = |value: f64| HEIGHT - 30.0 - (HEIGHT - 50.0) * value / highest;
    let mut body = String::new();
    for quarter in 0..=4 {
        let value = highest * f64::from(quarter) / 4.0;
        let _ = write!(
            body,
            r#"<line x1="{LEFT}" x2="{:.0}" y1="{2:.1}" y2="{2:.1}" class="rule"/><text x="{1:.0}" y="{3:.1}" text-anchor="end" class="soft">{4}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(value),
            y(value) + 4.0,
            thousands(value.round() as u64),
        );
    }
    for (position, label) in x_labels.iter().enumerate() {
        let _ = write!(
            body,
            r#"<text x="{:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
            x(position),
            HEIGHT - 8.0,
            escaped(label)
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .filter_map(|(position, value)| Some(format!("{:.1},{:.1}", x(position), y((*value)?))))
            .collect();
        let _ = write!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>"#,
            points.join(" "),
            colour(number)
        );
        let row = 20.0 + number as f64 * 20.0;
        let _ = write!(
            body,
            r#"<rect x="{:.0}" y="{:.0}" width="12" height="12" fill="{}"/><text x="{:.0}" y="{:.0}">{}</text>"#,
            WIDTH - RIGHT + 22.0,
            row - 10.0,
            colour(number),
            WIDTH - RIGHT + 40.0,
            row,
            escaped(&line.name),
        );
    }
    svg(title, HEIGHT.max(lines.len() as f64 * 20.0 + 20.0), &body)
}

/// Draws a grid of numbers. Greater numbers are darker, on a logarithmic scale.
pub fn grid(title: &str, columns: &[String], rows: &[Line]) -> String {
    const ROW: f64 = 34.0;
    const LABEL: f64 = 90.0;
    let width = (WIDTH - LABEL) / columns.len().max(1) as f64;
    let highest =
        rows.iter().flat_map(|row| row.values.iter().flatten()).copied().fold(1.0, f64::max);
    let mut body = String::new();
    for (position, column) in columns.iter().enumerate() {
        let x = LABEL + width * (position as f64 + 0.5);
        let _ = write!(
            body,
            r#"<text x="{x:.1}" y="14" text-anchor="middle" class="soft">{}</text>"#,
            escaped(column)
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = 22.0 + number as f64 * ROW;
        let _ = write!(
            body,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text>"#,
            LABEL - 10.0,
            y + 21.0,
            escaped(&row.name)
        );
        for (position, value) in row.values.iter().enumerate() {
            let Some(value) = value else { continue };
            // Follower counts span orders of magnitude: on a linear scale only one cell would be
            // visible.
            let share = ((value + 1.0).ln() / (highest + 1.0).ln()).clamp(0.05, 1.0);
            let x = LABEL + width * position as f64;
            let _ = write!(
                body,
                r##"<rect x="{x:.1}" y="{y:.0}" width="{:.1}" height="{:.0}" fill="#4269d0" fill-opacity="{:.2}"/><text x="{:.1}" y="{:.0}" text-anchor="middle">{}</text>"##,
                width - 3.0,
                ROW - 3.0,
                share * share * 0.7,
                x + width / 2.0,
                y + 21.0,
                thousands(value.round() as u64),
            );
        }
    }
    svg(title, 22.0 + rows.len() as f64 * ROW, &body)
}

/// Wraps the shapes into an SVG element with an accessible title.
fn svg(title: &str, height: f64, body: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{0}"><title>{0}</title>{body}</svg>"#,
        escaped(title)
    )
}
