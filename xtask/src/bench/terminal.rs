//! Tables and claims on the terminal.

use super::{
    number::spell,
    result::{Claim, Outcome, Table},
};
use crate::term::{Colour, paint};

/// What is longer than this stands below its table.
const WIDEST: usize = 30;

/// Prints what a scenario found.
pub fn print(outcome: &Outcome) {
    for table in &outcome.tables {
        print_table(table);
    }
    for claim in &outcome.claims {
        println!("  {}", claim_line(claim));
    }
    for note in outcome.unsure().iter().chain(&outcome.notes) {
        println!("  {}", paint(Colour::Faint, format!("note: {note}")));
    }
}

/// A claim with its verdict.
fn claim_line(Claim { text, seen, holds }: &Claim) -> String {
    let verdict = if *holds {
        paint(Colour::Green, "pass")
    } else {
        paint(Colour::Red, "miss")
    };
    format!("{verdict}  {text}: {seen}")
}

fn print_table(table: &Table) {
    let (lines, below) = layout(table);
    println!("\n  {}", paint(Colour::Bold, &table.title));
    for (index, line) in lines.iter().enumerate() {
        match index {
            0 => println!("  {}", paint(Colour::Faint, line)),
            _ => println!("  {line}"),
        }
    }
    for (index, words) in below.iter().enumerate() {
        println!("  ({}) {words}", index + 1);
    }
    println!();
}

/// The lines of `table`, the heading first, columns aligned; and what was too long for a cell.
fn layout(table: &Table) -> (Vec<String>, Vec<String>) {
    let mut below: Vec<String> = Vec::new();
    let mut short = |words: String| {
        if words.chars().count() <= WIDEST {
            return words;
        }
        let index = below.iter().position(|known| *known == words);
        let index = index.unwrap_or_else(|| {
            below.push(words.clone());
            below.len() - 1
        });
        let kind = words.split(':').next().unwrap_or_default();
        match kind {
            "not yet" | "missing" => format!("{kind} ({})", index + 1),
            _ => format!("({})", index + 1),
        }
    };
    let heading = std::iter::once(table.of.clone()).chain(table.columns.iter().map(|column| {
        match column.unit.as_str() {
            "" => column.title.clone(),
            unit => format!("{} ({unit})", column.title),
        }
    }));
    let mut rows: Vec<Vec<String>> = vec![heading.collect()];
    for row in &table.rows {
        let cells = table.columns.iter().zip(&row.cells);
        let cells = cells.map(|(column, cell)| short(spell(cell, column.digits)));
        rows.push(std::iter::once(row.label.clone()).chain(cells).collect());
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=table.columns.len()).map(width).collect();
    // Columns of words are read from the left, figures compared from the right.
    let words = |column: usize| column == 0 || table.has_words(column - 1);
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if words(column) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    });
    (lines.collect(), below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::result::{Cell, Column, Row};

    #[test]
    fn columns_are_aligned_and_long_words_stand_below() {
        let table = Table {
            id: "t".to_owned(),
            title: "T".to_owned(),
            of: "peer".to_owned(),
            columns: vec![Column::new("CPU", "us", 1), Column::new("p99", "ms", 0)],
            rows: vec![
                Row::new(
                    "one",
                    vec![Cell::figure(&[1.0, 2.0, 3.0]), Cell::figure(&[1200.0])],
                ),
                Row::new(
                    "another",
                    vec![
                        Cell::Missing {
                            what: "wrk is not here: run cargo xtask setup --peers".to_owned(),
                        },
                        Cell::Empty,
                    ],
                ),
            ],
        };
        let (lines, below) = layout(&table);
        assert_eq!(
            lines,
            [
                "peer             CPU (us)  p99 (ms)",
                "one      2.0 [1.0 to 3.0]     1,200",
                "another       missing (1)",
            ]
        );
        assert_eq!(
            below,
            ["missing: wrk is not here: run cargo xtask setup --peers"]
        );
    }
}
