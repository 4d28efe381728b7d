//! Tables in Markdown, for `report.md`, README.md and docs/figures.md.

use std::fmt::Write as _;

use crate::bench::{
    facts::Facts,
    number::spell,
    result::{Claim, Outcome, Table},
    store::{Record, Results},
};

/// The whole report.
pub(super) fn report(results: &Results) -> String {
    let mut text = "# evenkeel: what `cargo xtask bench` found\n\n".to_owned();
    text += &summary(results);
    for record in &results.records {
        text += &scenario(record, 2);
    }
    text += &host(&results.facts, 2);
    text
}

/// What was run, where, and how many of the claims held.
pub(super) fn summary(results: &Results) -> String {
    let facts = &results.facts;
    let (claims, held) = super::verdict(results);
    let mut text = format!(
        "{held} of {claims} claims hold. Last run {} on commit {}: {}.\n",
        words(&facts.date),
        words(&facts.commit),
        words(&facts.host().describe()),
    );
    for warning in results.warnings() {
        let _ = writeln!(text, "\n*{}*", words(&warning));
    }
    let _ = writeln!(text, "\n{}", super::LEGEND);
    if !results.missing.is_empty() {
        let _ = writeln!(text, "\nNot measured here: {}.", results.missing.join(", "));
    }
    text.push('\n');
    text
}

/// A scenario: claims, tables, notes, commands; headings from `level` on.
pub(super) fn scenario(record: &Record, level: usize) -> String {
    let Record {
        outcome,
        date,
        commit,
        host: _,
        failure,
    } = record;
    let heading = "#".repeat(level);
    let mut text = format!(
        "{heading} {}\n\n{}\n\n{}\n\n",
        words(&outcome.name),
        words(&outcome.about),
        run(outcome, date, commit)
    );
    if let Some(why) = failure {
        let _ = writeln!(text, "**Failed:** {}\n", words(why));
    }
    text += &caveats(record);
    text += &claims(&outcome.claims);
    for found in &outcome.tables {
        let _ = writeln!(text, "{heading}# {}\n", words(&found.title));
        text += &table(found);
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "* {}", words(note));
    }
    if !outcome.notes.is_empty() {
        text.push('\n');
    }
    text += "```sh\n";
    for command in &outcome.commands {
        // A line that could end the block stays inside it.
        let _ = writeln!(text, "{}", command.replace("```", "'''"));
    }
    text += "```\n\n";
    text
}

/// When, what, how long, from which seed.
pub(super) fn run(outcome: &Outcome, date: &str, commit: &str) -> String {
    format!(
        "{} run of {} s, {}, commit {}, seed {}",
        if outcome.quick { "Quick" } else { "Full" },
        outcome.seconds.round(),
        words(date),
        words(commit),
        outcome.seed
    )
}

/// What makes the figures of one run worth less than they look; nothing where nothing does.
pub(super) fn caveats(record: &Record) -> String {
    let mut text = String::new();
    for note in &record.host.notes {
        let _ = writeln!(text, "*{}*\n", words(note));
    }
    if let Some(unsure) = record.outcome.unsure() {
        let _ = writeln!(text, "{}\n", words(&unsure));
    }
    text
}

/// The claims as a table; nothing where none was made.
pub(super) fn claims(claims: &[Claim]) -> String {
    let mut text = String::new();
    if claims.is_empty() {
        return text;
    }
    text += "| claim | seen | |\n| --- | --- | --- |\n";
    for Claim {
        text: what,
        seen,
        holds,
    } in claims
    {
        let verdict = if *holds { "pass" } else { "**miss**" };
        let _ = writeln!(text, "| {} | {} | {verdict} |", words(what), words(seen));
    }
    text.push('\n');
    text
}

/// One table.
pub(super) fn table(table: &Table) -> String {
    let mut text = format!("| {} |", words(&table.of));
    for column in &table.columns {
        let _ = match column.unit.as_str() {
            "" => write!(text, " {} |", words(&column.title)),
            unit => write!(text, " {} ({}) |", words(&column.title), words(unit)),
        };
    }
    text += "\n| --- |";
    for column in 0..table.columns.len() {
        // Words are read from the left, figures compared from the right.
        text += if table.has_words(column) {
            " --- |"
        } else {
            " ---: |"
        };
    }
    text.push('\n');
    for row in &table.rows {
        let _ = write!(text, "| {} |", words(&row.label));
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let _ = write!(text, " {} |", words(&spell(cell, column.digits)));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

/// The host as a table.
pub(super) fn host(facts: &Facts, level: usize) -> String {
    let mut text = format!("{} The host\n\n| | |\n| --- | --- |\n", "#".repeat(level));
    for fact in &facts.facts {
        let _ = writeln!(text, "| {} | {} |", words(&fact.name), words(&fact.value));
    }
    text
}

/// `text` with nothing in it that Markdown, HTML or a table would take for its own.
fn words(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::result::{Cell, Column, Row};

    #[test]
    fn hostile_words_stay_words() {
        let text = table(&Table {
            id: "t".to_owned(),
            title: String::new(),
            of: "a|b".to_owned(),
            columns: vec![Column::new("p_9*9", "", 1)],
            rows: vec![Row::new(
                "<script>alert(1)</script>\n| x |",
                vec![Cell::text("[here](javascript:x)")],
            )],
        });
        assert_eq!(
            text,
            "| a\\|b | p\\_9\\*9 |\n| --- | --- |\n\
             | &lt;script&gt;alert(1)&lt;/script&gt; \\| x \\| | \\[here\\](javascript:x) |\n\n"
        );
    }
}
