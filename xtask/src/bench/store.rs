//! `target/bench/results/NAME.json`: what each scenario found last, on which commit, and when.
//!
//! The report, the Markdown tables, the CSV files and the README's figures are made from these files alone, so they can
//! be made again without measuring, and cannot say what was not measured. A scenario that failed leaves a record too:
//! figures of an older run would otherwise pass for those of the last.

use std::{collections::HashSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    facts::{Facts, Host},
    result::{Cell, Outcome, Plot, Table},
};
use crate::workspace;

/// One run of one scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// What was found; of a failed run only what it is called and what it asks.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When it began, UTC.
    pub date: String,
    /// The commit of the checkout, with `+` behind it where files had been changed.
    pub commit: String,
    /// Where it ran; records of older versions do not say.
    #[serde(default)]
    pub host: Host,
    /// Why there are no figures.
    pub failure: Option<String>,
}

/// All that is known: records in the order that they are reported in, and the host of the last run.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// One for each scenario that was run.
    pub records: Vec<Record>,
    /// Scenarios that were never run here.
    pub missing: Vec<String>,
    /// The host.
    pub facts: Facts,
}

/// Where everything of the benchmarks is kept.
pub fn home() -> Result<PathBuf> {
    Ok(workspace::target()?.join("bench"))
}

impl Record {
    /// Stores it, in place of the run before.
    pub fn save(&self) -> Result<()> {
        let directory = home()?.join("results");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.json", self.outcome.name));
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The last run of the scenario called `name`, if there was one.
    pub fn load(name: &str) -> Result<Option<Self>> {
        let path = home()?.join("results").join(format!("{name}.json"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("cannot make sense of {}", path.display()))
    }
}

impl Results {
    /// The last run of each scenario in `names`.
    pub fn load<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut results = Self {
            facts: Facts::load()?,
            ..Self::default()
        };
        for name in names {
            match Record::load(name)? {
                Some(record) => results.records.push(record),
                None => results.missing.push(name.to_owned()),
            }
        }
        Ok(results)
    }

    /// What makes figures worth less than they look: notes, each behind the scenarios that it is of, and hosts that
    /// differ.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut notes: Vec<&str> = Vec::new();
        let mut hosts: Vec<String> = Vec::new();
        for host in self.records.iter().map(|record| &record.host) {
            notes.extend(host.notes.iter().map(String::as_str));
            hosts.push(host.describe());
        }
        let mut seen = HashSet::new();
        notes.retain(|note| seen.insert(*note));
        let mut seen = HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        let mut warnings: Vec<String> = notes
            .iter()
            .map(|note| {
                let of = self.of(|host| host.notes.iter().any(|has| has == note));
                format!("{of}: {note}")
            })
            .collect();
        // Of a run that left no record.
        let last = self.facts.notes.iter();
        let last = last.filter(|note| !notes.contains(&note.as_str()));
        warnings.extend(last.map(|note| format!("last run: {note}")));
        if hosts.len() > 1 {
            let each = hosts.iter().map(|name| {
                let of = self.of(|host| host.describe() == *name);
                format!("{of} on {name}")
            });
            warnings.push(format!(
                "not all figures were taken on one host, and those of different hosts do not compare: {}",
                each.collect::<Vec<_>>().join("; ")
            ));
        }
        warnings
    }

    /// Names of the scenarios whose host is such.
    fn of(&self, is: impl Fn(&Host) -> bool) -> String {
        let records = self.records.iter().filter(|record| is(&record.host));
        let names: Vec<&str> = records.map(|record| record.outcome.name.as_str()).collect();
        names.join(", ")
    }
}

/// Whether `outcome` can be stored, drawn and read back: what is wrong with it is the scenario's mistake, and better
/// found when it ran than when somebody reads the report.
pub fn check(outcome: &Outcome) -> Result<()> {
    let mut ids = HashSet::new();
    let all = outcome.tables.iter().map(|table| &table.id);
    for id in all.chain(outcome.plots.iter().map(|plot| &plot.id)) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !id.is_empty() && id.chars().all(plain),
            "the id {id:?} is part of file names: a-z, 0-9 and - only"
        );
        ensure!(ids.insert(id), "two tables or plots are called {id}");
    }
    outcome.tables.iter().try_for_each(check_table)?;
    outcome.plots.iter().try_for_each(check_plot)
}

fn check_table(table: &Table) -> Result<()> {
    for row in &table.rows {
        ensure!(
            row.cells.len() == table.columns.len(),
            "table {}, row {:?}: {} cells in {} columns",
            table.id,
            row.label,
            row.cells.len(),
            table.columns.len()
        );
        for cell in &row.cells {
            if let Cell::Figure(measured) = cell {
                let figures = [measured.median, measured.low, measured.high];
                ensure!(
                    figures
                        .iter()
                        .chain(&measured.samples)
                        .all(|figure| figure.is_finite()),
                    "table {}, row {:?}: a figure that is no number",
                    table.id,
                    row.label
                );
            }
        }
    }
    Ok(())
}

fn check_plot(plot: &Plot) -> Result<()> {
    for series in &plot.series {
        for point in &series.points {
            ensure!(
                [point.x, point.y, point.low, point.high]
                    .iter()
                    .all(|figure| figure.is_finite()),
                "plot {}, {}: a point that is no number",
                plot.id,
                series.name
            );
            let categories = plot.x.categories.len();
            ensure!(
                categories == 0 || (0.0..categories as f64).contains(&point.x),
                "plot {}, {}: a point at {} of {categories} categories",
                plot.id,
                series.name,
                point.x
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::result::{Axis, Column, PlotKind, Point, Row, Series};

    fn table(cells: Vec<Cell>) -> Outcome {
        Outcome {
            tables: vec![Table {
                id: "t".to_owned(),
                title: String::new(),
                of: String::new(),
                columns: vec![Column::new("c", "", 0)],
                rows: vec![Row::new("r", cells)],
            }],
            ..Outcome::default()
        }
    }

    fn host(kernel: &str, notes: &[&str]) -> Host {
        Host {
            kernel: kernel.to_owned(),
            cpu: "Zen".to_owned(),
            cpus: "2".to_owned(),
            machine: "virtual".to_owned(),
            notes: notes.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn notes_stay_with_their_scenarios_and_hosts_that_differ_are_named() {
        let record = |name: &str, host: Host| Record {
            outcome: Outcome {
                name: name.to_owned(),
                ..Outcome::default()
            },
            host,
            ..Record::default()
        };
        let mut results = Results {
            records: vec![
                record("a", host("6.1", &["busy"])),
                record("b", host("6.1", &[])),
                record("c", host("6.1", &["busy"])),
            ],
            ..Results::default()
        };
        assert_eq!(results.warnings(), ["a, c: busy"]);
        results.facts.notes.push("quick".to_owned());
        results.records[1].host = host("6.2", &[]);
        results.records.push(record("d", Host::default()));
        assert_eq!(
            results.warnings(),
            [
                "a, c: busy",
                "last run: quick",
                "not all figures were taken on one host, and those of different hosts do not compare: a, c on 2 CPUs \
                 (Zen, virtual), Linux 6.1; b on 2 CPUs (Zen, virtual), Linux 6.2; d on a host that is not known"
            ]
        );
    }

    #[test]
    fn a_record_of_before_hosts_were_kept_can_be_read() -> Result<()> {
        let mut stored = serde_json::to_value(Record::default())?;
        stored
            .as_object_mut()
            .and_then(|fields| fields.remove("host"))
            .context("host")?;
        let record: Record = serde_json::from_value(stored)?;
        assert_eq!(record.host, Host::default());
        Ok(())
    }

    #[test]
    fn what_could_not_be_read_back_is_refused() {
        assert!(check(&table(vec![Cell::figure(&[1.0])])).is_ok());
        assert!(check(&table(vec![Cell::figure(&[f64::NAN])])).is_err());
        assert!(check(&table(vec![])).is_err());
        let mut odd = table(vec![Cell::Empty]);
        odd.tables[0].id = "../t".to_owned();
        assert!(check(&odd).is_err());
    }

    #[test]
    fn a_point_outside_the_categories_is_refused() {
        let plot = |x: f64| Outcome {
            plots: vec![Plot {
                id: "p".to_owned(),
                title: String::new(),
                kind: PlotKind::Bars,
                x: Axis {
                    categories: vec!["only".to_owned()],
                    ..Axis::default()
                },
                y: Axis::default(),
                series: vec![Series {
                    name: String::new(),
                    points: vec![Point::new(x, 1.0)],
                }],
            }],
            ..Outcome::default()
        };
        assert!(check(&plot(0.0)).is_ok());
        assert!(check(&plot(1.0)).is_err());
    }

    #[test]
    fn a_record_survives_being_stored() -> Result<()> {
        let record = Record {
            outcome: table(vec![Cell::figure(&[1.0, 2.0])]),
            failure: Some("<script>".to_owned()),
            host: host("6.18", &["busy"]),
            ..Record::default()
        };
        let again: Record = serde_json::from_str(&serde_json::to_string(&record)?)?;
        assert_eq!(
            serde_json::to_string(&record)?,
            serde_json::to_string(&again)?
        );
        Ok(())
    }
}
