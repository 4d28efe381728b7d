//! Figures as people read them: the same digits on the terminal, in Markdown and on the page.

use super::result::{Cell, Measured};

/// `value` with `digits` after the point and thousands grouped: `1,234,567.80`.
#[must_use]
pub fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    // What rounds to zero has no sign.
    let negative = value < 0.0 && text.chars().any(|c| c.is_ascii_digit() && c != '0');
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

/// The interval of `measured`, if the digits shown can tell its ends apart; what was measured once has none.
#[must_use]
pub fn interval(measured: &Measured, digits: usize) -> Option<String> {
    let [low, high] = [measured.low, measured.high].map(|end| number(end, digits));
    (low != high).then(|| format!("{low} to {high}"))
}

/// What stands in `cell`, in words: figures with their interval, and for what is not there the reason.
#[must_use]
pub fn spell(cell: &Cell, digits: usize) -> String {
    match cell {
        Cell::Figure(measured) => {
            let median = number(measured.median, digits);
            match interval(measured, digits) {
                Some(interval) => format!("{median} [{interval}]"),
                None => median,
            }
        }
        Cell::Text { text } => text.clone(),
        Cell::Empty => String::new(),
        Cell::NotYet { wants } => format!("not yet: {wants}"),
        Cell::Missing { what } => format!("missing: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_and_zero_has_no_sign() {
        assert_eq!(number(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(number(-1234.0, 0), "-1,234");
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(number(999.999, 1), "1,000.0");
        assert_eq!(number(0.5, 0), "0");
    }

    #[test]
    fn an_interval_is_shown_where_there_is_one() {
        assert_eq!(spell(&Cell::figure(&[2.0]), 1), "2.0");
        assert_eq!(spell(&Cell::figure(&[2.0, 2.0]), 1), "2.0");
        assert_eq!(
            spell(&Cell::figure(&[1.0, 2.0, 4.0]), 1),
            "2.0 [1.0 to 4.0]"
        );
    }
}
