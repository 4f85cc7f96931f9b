//! Rows of the report, printed as a table or as JSON.

use serde_json::json;

/// A measured value and the limit that it is compared with.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: f64,
    /// The name and the value of the limit.
    pub raw: Option<(&'static str, f64)>,
    pub aim: Option<Aim>,
}

/// The target of a row.
#[derive(Clone, Copy)]
pub enum Aim {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtMost(f64),
}

impl Row {
    pub fn new(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self {
            what: what.into(),
            unit,
            ours,
            raw: None,
            aim: None,
        }
    }

    pub fn beside(mut self, limit: &'static str, raw: f64) -> Self {
        self.raw = Some((limit, raw));
        self
    }

    pub fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.raw.map(|(_, raw)| self.ours / raw)
    }

    fn met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        Some(match self.aim? {
            Aim::RatioAtLeast(aim) => ratio >= aim,
            Aim::RatioAtMost(aim) => ratio <= aim,
            Aim::AtMost(aim) => self.ours <= aim,
        })
    }
}

impl Aim {
    fn text(self, unit: &str) -> String {
        match self {
            Aim::RatioAtLeast(aim) => format!("≥ {aim} ×"),
            Aim::RatioAtMost(aim) => format!("≤ {aim} ×"),
            Aim::AtMost(aim) => format!("≤ {aim} {unit}"),
        }
    }
}

/// Formats the rows as a Markdown table with aligned columns.
pub fn table(machine: &str, rows: &[Row]) -> String {
    let head = ["what", "raw limit", "ours", "ratio", "aim"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..5)
        .map(|column| lines.iter().map(|line| width(&line[column])).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = format!("{machine}\n\n");
    for (index, line) in lines.iter().enumerate() {
        for (cell, width_of_all) in line.iter().zip(&widths) {
            let padding = " ".repeat(width_of_all - width(cell));
            text += &format!("| {cell}{padding} ");
        }
        text += "|\n";
        if index == 0 {
            let rule = |&width: &usize| format!("|{}", "-".repeat(width + 2));
            text += &(widths.iter().map(rule).collect::<String>() + "|\n");
        }
    }
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn cells(row: &Row) -> [String; 5] {
    let raw = row
        .raw
        .map(|(limit, raw)| format!("{limit}: {} {}", number(raw), row.unit));
    let aim = row.aim.map(|aim| match row.met() {
        Some(true) => format!("{}, met", aim.text(row.unit)),
        _ => format!("{}, missed", aim.text(row.unit)),
    });
    [
        row.what.clone(),
        raw.unwrap_or_default(),
        format!("{} {}", number(row.ours), row.unit),
        row.ratio()
            .map(|ratio| format!("{ratio:.2} ×"))
            .unwrap_or_default(),
        aim.unwrap_or_default(),
    ]
}

/// Formats a value with three significant digits.
fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub fn json(machine: &str, rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "what": row.what,
                "unit": row.unit,
                "ours": row.ours,
                "limit": row.raw.map(|(limit, _)| limit),
                "raw": row.raw.map(|(_, raw)| raw),
                "ratio": row.ratio(),
                "aim": row.aim.map(|aim| aim.text(row.unit)),
                "met": row.met(),
            })
        })
        .collect();
    format!("{:#}", json!({ "machine": machine, "rows": rows }))
}
