//! Cost of resources, from a dated table of list prices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Quantity of one line of the price table.
#[derive(Debug, Clone, PartialEq)]
pub struct CostItem {
    pub line: String,
    pub count: f64,
}

impl CostItem {
    pub fn new(line: impl Into<String>, count: impl Into<f64>) -> Self {
        Self { line: line.into(), count: count.into() }
    }
}

/// The price table `prices.toml`: prices in us-east-1, in US dollars.
#[derive(Debug, Deserialize)]
pub struct Prices {
    /// Dates of publication of the prices.
    pub date: String,
    pub region: String,
    hour: BTreeMap<String, f64>,
    month: BTreeMap<String, f64>,
}

/// Hours per month in AWS price lists.
pub const MONTH_HOURS: f64 = 730.0;

/// Cost in dollars per hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub dollars_per_hour: f64,
    /// Whether all items have a price; if not, the actual cost is higher.
    pub is_whole: bool,
}

impl Cost {
    pub const NOTHING: Cost = Cost { dollars_per_hour: 0.0, is_whole: true };

    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            dollars_per_hour: self.dollars_per_hour + other.dollars_per_hour,
            is_whole: self.is_whole && other.is_whole,
        }
    }

    /// Formats the cost over `hours`; empty if the hourly cost is zero.
    pub fn text(self, hours: f64) -> String {
        match (self.dollars_per_hour, self.is_whole) {
            (0.0, true) => String::new(),
            (0.0, false) => "unknown".into(),
            (dollars, true) => dollars_text(dollars * hours),
            (dollars, false) => format!("more than {}", dollars_text(dollars * hours)),
        }
    }
}

fn dollars_text(dollars: f64) -> String {
    if dollars < 1.0 { format!("${dollars:.4}") } else { format!("${dollars:.2}") }
}

impl Prices {
    /// Returns the built-in table.
    pub fn built_in() -> Self {
        toml::from_str(include_str!("prices.toml"))
            .expect("prices.toml is compiled in, and a test parses it")
    }

    /// Returns the total cost of several items.
    pub fn cost(&self, priced: &[CostItem]) -> Cost {
        priced.iter().map(|priced| self.line(priced)).fold(Cost::NOTHING, Cost::plus)
    }

    fn line(&self, priced: &CostItem) -> Cost {
        let hourly = self
            .hour
            .get(&priced.line)
            .copied()
            .or_else(|| self.month.get(&priced.line).map(|month| month / MONTH_HOURS));
        Cost { dollars_per_hour: hourly.unwrap_or(0.0) * priced.count, is_whole: hourly.is_some() }
    }

    /// Returns the note about region and dates of the prices.
    pub fn note(&self) -> String {
        format!(
            "list prices of {}, published {}; excluding taxes, data transfer and requests",
            self.region, self.date
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_hourly_and_monthly_prices_and_reports_unknown_prices() {
        let prices = Prices::built_in();
        let brokers = prices
            .cost(&[CostItem::new("kafka.m5.large", 3), CostItem::new("msk-storage-gib", 300)]);
        assert!(
            brokers.is_whole
                && (brokers.dollars_per_hour - (3.0 * 0.21 + 300.0 * 0.10 / MONTH_HOURS)).abs()
                    < 1e-9,
            "{brokers:?}"
        );
        let unpriced = prices.cost(&[CostItem::new("kafka.m99.huge", 3)]);
        assert_eq!((unpriced.text(1.0).as_str(), unpriced.is_whole), ("unknown", false));
        assert_eq!(Cost::NOTHING.text(1.0), "");
        assert_eq!(Cost { dollars_per_hour: 0.5, is_whole: true }.text(730.0), "$365.00");
    }
}
