//! Charts as SVG, drawn from nothing but numbers.

use std::fmt::Write;

use crate::base::output::table::thousands;
use crate::stages::batch::page::escape::escaped;

/// Colours that people with any colour vision tell apart, over and over.
const COLOURS: [&str; 13] = [
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5",
    "#9c6b4e", "#9498a0", "#1b9e77", "#d95f02", "#7570b3",
];
/// Width of every chart, in its own units.
const WIDTH: f64 = 960.0;

/// The colour of the so manyth name.
pub fn colour(position: usize) -> &'static str {
    COLOURS[position % COLOURS.len()]
}

/// A bar: what it stands for, how long it is, its colour, and what is said beside it.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub colour: &'static str,
    pub note: String,
}

/// Bars below each other.
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
    framed(title, bars.len() as f64 * ROW + 4.0, &body)
}

/// A line: its name and a value for each place on the x axis, where there is one.
pub struct Line {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// Lines over a common x axis, with a legend at the right.
pub fn lines(title: &str, x_labels: &[String], lines: &[Line]) -> String {
    const HEIGHT: f64 = 320.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 190.0;
    let highest = lines
        .iter()
        .flat_map(|line| line.values.iter().flatten())
        .copied()
        .fold(1.0, f64::max);
    let x = |place: usize| {
        LEFT + (WIDTH - LEFT - RIGHT) * place as f64 / (x_labels.len().max(2) - 1) as f64
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
    for (place, label) in x_labels.iter().enumerate() {
        let _ = write!(
            body,
            r#"<text x="{:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
            x(place),
            HEIGHT - 8.0,
            escaped(label)
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .filter_map(|(place, value)| Some(format!("{:.1},{:.1}", x(place), y((*value)?))))
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
    framed(title, HEIGHT.max(lines.len() as f64 * 20.0 + 20.0), &body)
}

/// A grid of numbers, the greater the darker (by their magnitude).
pub fn grid(title: &str, columns: &[String], rows: &[Line]) -> String {
    const ROW: f64 = 34.0;
    const LABEL: f64 = 90.0;
    let width = (WIDTH - LABEL) / columns.len().max(1) as f64;
    let highest = rows
        .iter()
        .flat_map(|row| row.values.iter().flatten())
        .copied()
        .fold(1.0, f64::max);
    let mut body = String::new();
    for (place, column) in columns.iter().enumerate() {
        let x = LABEL + width * (place as f64 + 0.5);
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
        for (place, value) in row.values.iter().enumerate() {
            let Some(value) = value else { continue };
            // Counts of followers span magnitudes: a linear shade would show one cell only.
            let share = ((value + 1.0).ln() / (highest + 1.0).ln()).clamp(0.05, 1.0);
            let x = LABEL + width * place as f64;
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
    framed(title, 22.0 + rows.len() as f64 * ROW, &body)
}

fn framed(title: &str, height: f64, body: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{0}"><title>{0}</title>{body}</svg>"#,
        escaped(title)
    )
}
