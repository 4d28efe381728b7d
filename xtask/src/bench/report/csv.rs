//! A CSV file for each table and each plot: every figure with its interval in columns of its own.

use anyhow::{Context as _, Result};
use csv::Writer;

use crate::bench::{
    number::spell,
    result::{Cell, Plot, Table},
    store::Results,
};

/// Names and contents.
pub(super) fn files(results: &Results) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for outcome in results.records.iter().map(|record| &record.outcome) {
        let name = |id: &str| format!("{}-{id}.csv", outcome.name);
        for found in &outcome.tables {
            files.push((name(&found.id), table(found)?));
        }
        for found in &outcome.plots {
            files.push((name(&found.id), plot(found)?));
        }
    }
    Ok(files)
}

fn table(table: &Table) -> Result<String> {
    let mut writer = Writer::from_writer(Vec::new());
    let mut heading = vec![words(&table.of)];
    for column in &table.columns {
        let title = match column.unit.as_str() {
            "" => column.title.clone(),
            unit => format!("{} ({unit})", column.title),
        };
        for part in ["", " low", " high", " runs"] {
            heading.push(words(&format!("{title}{part}")));
        }
    }
    writer.write_record(&heading)?;
    for row in &table.rows {
        let mut line = vec![words(&row.label)];
        for cell in &row.cells {
            line.extend(match cell {
                Cell::Figure(it) => [
                    it.median.to_string(),
                    it.low.to_string(),
                    it.high.to_string(),
                    it.samples.len().to_string(),
                ],
                other => [
                    words(&spell(other, 0)),
                    String::new(),
                    String::new(),
                    String::new(),
                ],
            });
        }
        writer.write_record(&line)?;
    }
    finish(writer)
}

fn plot(plot: &Plot) -> Result<String> {
    let mut writer = Writer::from_writer(Vec::new());
    let [x, y] = [&plot.x.title, &plot.y.title].map(|title| words(title));
    let (low, high) = (format!("{y} low"), format!("{y} high"));
    writer.write_record(["series", &x, &y, &low, &high])?;
    for series in &plot.series {
        for point in &series.points {
            let across = plot
                .x
                .category(point.x)
                .map_or_else(|| point.x.to_string(), words);
            let [y, low, high] = [point.y, point.low, point.high].map(|figure| figure.to_string());
            writer.write_record([&words(&series.name), &across, &y, &low, &high])?;
        }
    }
    finish(writer)
}

fn finish(writer: Writer<Vec<u8>>) -> Result<String> {
    let bytes = writer.into_inner().context("writing CSV to memory")?;
    Ok(String::from_utf8(bytes)?)
}

/// Words that no spreadsheet takes for a formula
/// (<https://owasp.org/www-community/attacks/CSV_Injection>); figures are not words and stay as they are.
fn words(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::result::{Column, Row};

    #[test]
    fn every_figure_has_its_interval_and_words_are_no_formulas() -> Result<()> {
        let text = table(&Table {
            id: "t".to_owned(),
            title: "T".to_owned(),
            of: "peer, by name".to_owned(),
            columns: vec![Column::new("p99", "ms", 1)],
            rows: vec![
                Row::new("=cmd|' /C calc'!A0", vec![Cell::figure(&[-1.5, 2.0, 3.0])]),
                Row::new("\"quoted\"", vec![Cell::Empty]),
            ],
        })?;
        assert_eq!(
            text,
            "\"peer, by name\",p99 (ms),p99 (ms) low,p99 (ms) high,p99 (ms) runs\n\
             '=cmd|' /C calc'!A0,2,-1.5,3,3\n\"\"\"quoted\"\"\",,,,\n"
        );
        Ok(())
    }
}
