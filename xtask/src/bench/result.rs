//! What a scenario found: tables, plots and claims, in a form that can be stored, plotted and compared.
//!
//! A scenario prints nothing itself but progress. Its [`Outcome`] is written to `target/bench/results/NAME.json`;
//! the tables on the terminal, `report.html`, the Markdown tables, the CSV files and the README's figures are all
//! made from that file, so that no two of them can disagree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::stats::{self, interval};

/// Everything that one run of one scenario found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the scenario, as on the command line.
    pub name: String,
    /// The question that it answers, in a sentence.
    pub about: String,
    /// Commands that repeat it.
    pub commands: Vec<String>,
    /// Where every random choice of the run came from.
    pub seed: u64,
    /// The short version was run.
    pub quick: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Figures in rows and columns.
    pub tables: Vec<Table>,
    /// Figures to look at.
    pub plots: Vec<Plot>,
    /// What should hold, and whether it did.
    pub claims: Vec<Claim>,
    /// What a reader must know to read the figures right.
    pub notes: Vec<String>,
}

/// A table; every row has one cell for each column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Short name, unique within the scenario: part of file names.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// Heading of the column of labels.
    pub of: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A column of figures of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    /// What is in it.
    pub title: String,
    /// Unit of its figures; empty for ratios and texts.
    pub unit: String,
    /// Digits after the point.
    pub digits: usize,
}

/// A row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub label: String,
    /// One for each column.
    pub cells: Vec<Cell>,
}

/// What stands in a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cell {
    /// A figure.
    Figure(Measured),
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// Nothing, as it means nothing here.
    Empty,
    /// Not measured, as evenkeel cannot do it yet.
    NotYet {
        /// What is wanting.
        wants: String,
    },
    /// Not measured, as a program is not on this machine, or does not work here.
    Missing {
        /// Which, and what to do.
        what: String,
    },
}

/// A figure that was measured several times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The middle one.
    pub median: f64,
    /// Lower end of the interval that holds the true median at least 95 times in 100; of fewer than six samples, the
    /// least of them.
    pub low: f64,
    /// Upper end of that interval.
    pub high: f64,
    /// What was measured, in the order of the runs; nothing where the figure was computed.
    pub samples: Vec<f64>,
}

/// A plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plot {
    /// Short name, unique within the scenario: part of file names.
    pub id: String,
    /// What it shows, best as the sentence that a reader should take away.
    pub title: String,
    /// How it is drawn.
    pub kind: PlotKind,
    /// What the horizontal axis shows.
    pub x: Axis,
    /// What the vertical axis shows.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// How a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlotKind {
    /// A bar for each point, side by side for several series; x counts the categories of the x axis from 0.
    Bars,
    /// Points joined by lines, with a band from low to high.
    Lines,
    /// Steps from 0 to 1: y is the share of values of at most x.
    Cdf,
}

/// An axis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Whether it is logarithmic.
    pub logarithmic: bool,
    /// Names of the positions 0, 1, ...; empty for numbers.
    pub categories: Vec<String>,
}

/// What is drawn in one colour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// A point; without an interval `low` and `high` are `y`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Lower end of the interval of y.
    pub low: f64,
    /// Upper end of the interval of y.
    pub high: f64,
}

/// Something that should hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// What, with the figure that was wanted.
    pub text: String,
    /// The figure that was seen, in words.
    pub seen: String,
    /// Whether it held.
    pub holds: bool,
}

impl Outcome {
    /// Which of its intervals are less sure than others, because they are of too few runs; `None` where none is.
    #[must_use]
    pub fn unsure(&self) -> Option<String> {
        let rows = self.tables.iter().flat_map(|table| &table.rows);
        let runs = rows
            .flat_map(|row| &row.cells)
            .filter_map(|cell| match cell {
                Cell::Figure(measured) => Some(measured.samples.len()),
                _ => None,
            });
        // One run has no interval.
        let few: BTreeSet<usize> = runs
            .filter(|runs| (2..stats::SURE).contains(runs))
            .collect();
        let each = few.iter().map(|runs| {
            let times = (stats::coverage(*runs) * 100.0).floor();
            format!("of {runs} runs {times} times in 100")
        });
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| {
            format!(
                "Intervals of fewer than six runs are all that was seen, and hold the true median less often: {}.",
                each.join(", ")
            )
        })
    }
}

impl Measured {
    /// The median of `samples` and its interval; `None` of nothing.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let (low, median, high) = interval(samples)?;
        Some(Self {
            median,
            low,
            high,
            samples: samples.to_vec(),
        })
    }
}

impl Cell {
    /// The figure that `samples` show; empty where there are none.
    #[must_use]
    pub fn figure(samples: &[f64]) -> Self {
        Measured::of(samples).map_or(Self::Empty, Self::Figure)
    }

    /// Words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl Column {
    /// A column.
    #[must_use]
    pub fn new(title: &str, unit: &str, digits: usize) -> Self {
        Self {
            title: title.to_owned(),
            unit: unit.to_owned(),
            digits,
        }
    }
}

impl Row {
    /// A row.
    #[must_use]
    pub fn new(label: impl Into<String>, cells: Vec<Cell>) -> Self {
        Self {
            label: label.into(),
            cells,
        }
    }
}

impl Table {
    /// Whether there are words in the column at `index`.
    #[must_use]
    pub fn has_words(&self, index: usize) -> bool {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(index));
        cells
            .into_iter()
            .any(|cell| matches!(cell, Cell::Text { .. }))
    }
}

impl Axis {
    /// The name of position `x`, where positions have names.
    #[must_use]
    pub fn category(&self, x: f64) -> Option<&str> {
        // A float becomes an index by rounding towards zero; what is negative or no number becomes 0.
        self.categories.get(x as usize).map(String::as_str)
    }
}

impl Point {
    /// A point without an interval.
    #[must_use]
    pub fn new(x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            low: y,
            high: y,
        }
    }

    /// The figure at `x`.
    #[must_use]
    pub fn measured(x: f64, y: &Measured) -> Self {
        Self {
            x,
            y: y.median,
            low: y.low,
            high: y.high,
        }
    }
}

impl Claim {
    /// Something that should hold.
    #[must_use]
    pub fn new(text: impl Into<String>, seen: impl Into<String>, holds: bool) -> Self {
        Self {
            text: text.into(),
            seen: seen.into(),
            holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_few_runs_are_said_to_be_less_sure() {
        let outcome = |cells: Vec<Cell>| Outcome {
            tables: vec![Table {
                id: "t".to_owned(),
                title: String::new(),
                of: String::new(),
                columns: Vec::new(),
                rows: vec![Row::new("r", cells)],
            }],
            ..Outcome::default()
        };
        let sure = [Cell::figure(&[1.0]), Cell::figure(&[1.0; 6]), Cell::Empty];
        assert_eq!(outcome(sure.to_vec()).unsure(), None);
        let few = [Cell::figure(&[1.0; 4]), Cell::figure(&[1.0; 3])];
        assert_eq!(
            outcome(few.to_vec()).unsure().as_deref(),
            Some(
                "Intervals of fewer than six runs are all that was seen, and hold the true median less often: \
                 of 3 runs 75 times in 100, of 4 runs 87 times in 100."
            )
        );
    }
}
