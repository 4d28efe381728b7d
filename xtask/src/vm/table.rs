//! The verdicts as a table, a row for each kernel, and below it what went wrong.

use std::time::Duration;

use super::judge::{Counted, Verdict};
use crate::term::{Colour, paint, spell};

const TITLES: [&str; 11] = [
    "KERNEL", "CHECKS", "TC", "L4", "L7", "XDP", "L4", "L7", "OBSERVE", "TOOK", "RESULT",
];

type Row = [String; TITLES.len()];

/// Prints all of it.
pub(super) fn print(verdicts: &[Verdict]) {
    let rows: Vec<Row> = verdicts.iter().map(row).collect();
    let mut widths = TITLES.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &Row| {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    println!("{}", paint(Colour::Faint, line(&TITLES.map(str::to_owned))));
    for (row, verdict) in rows.iter().zip(verdicts) {
        let colour = if verdict.passed {
            Colour::Green
        } else {
            Colour::Red
        };
        println!("{}", paint(colour, line(row)));
    }
    println!("L4, L7, OBSERVE: streams counted in the kernel / opened by the client");
    for verdict in verdicts.iter().filter(|it| !it.passed) {
        println!("\nLinux {}, console in {}:", verdict.kernel, verdict.log);
        for objection in &verdict.objections {
            println!("  {objection}");
        }
    }
}

fn row(verdict: &Verdict) -> Row {
    let (ok, all) = verdict.checks;
    let mut cells = vec![verdict.kernel.clone(), format!("{ok} of {all}")];
    for pass in &verdict.passes {
        cells.push(if pass.attached.is_empty() {
            nothing()
        } else {
            pass.attached.clone()
        });
        cells.extend([counts(pass.l4.as_ref()), counts(pass.l7.as_ref())]);
    }
    cells.push(
        verdict
            .observed
            .map_or_else(nothing, |(opened, seen)| format!("{seen}/{opened}")),
    );
    cells.push(spell(Duration::from_secs_f64(verdict.seconds.max(0.0))));
    cells.push(if verdict.passed { "passed" } else { "failed" }.to_owned());
    let mut cells = cells.into_iter();
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn counts(counted: Option<&Counted>) -> String {
    counted.map_or_else(nothing, |it| format!("{}/{}", it.streams(), it.answers()))
}

fn nothing() -> String {
    "-".to_owned()
}
