//! Katran's XDP program beside ours, where `--katran` names a checkout of it: compiled from there, measured in the same
//! turns. Nothing of it is part of evenkeel.
//!
//! The goals of this scenario in nanoseconds are what it took on one machine; here is what it takes on this one.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{
    super::{
        Context,
        result::{Cell, Claim, Column, Row, Table},
    },
    Case, Report, at_most,
};
use crate::{setup::install_packages, shell};

/// Where the program is in a checkout.
const SOURCE: &str = "katran/lib/bpf/balancer.bpf.c";
/// What is compared: case of ours, case of Katran's, what it is. A request with its streams counted stands against an
/// acknowledgement, which is the same to a program that does not look into packets.
const PAIRS: [(&str, &str, &str); 5] = [
    ("established", "katran_acknowledgement", "known flow"),
    ("opening", "katran_opening", "new flow (SYN)"),
    ("unrelated", "katran_unrelated", "not our service"),
    ("flows_1k", "katran_flows_1k", "one of 1,000 flows"),
    ("flows_1m", "katran_flows_1m", "one of 1,000,000 flows"),
];

/// Compiles the program of the checkout that the run was told of.
pub(super) fn object(context: &Context) -> Result<Option<PathBuf>> {
    let Some(checkout) = &context.katran else {
        return Ok(None);
    };
    let source = checkout.join(SOURCE);
    ensure!(
        source.is_file(),
        "--katran {}: no {SOURCE} in it; it takes a checkout of https://github.com/facebookincubator/katran",
        checkout.display()
    );
    install_packages(&["clang", "libc6-dev"])?;
    let object = context.scratch("datapath")?.join("katran.bpf.o");
    shell::quietly(
        "compiling Katran's program",
        &mut compiler(checkout, &object),
    )?;
    Ok(Some(object))
}

fn compiler(checkout: &Path, object: &Path) -> Command {
    let machine = env::consts::ARCH;
    let mut include = OsString::from("-I");
    include.push(checkout);
    let mut clang = Command::new("clang");
    clang
        .args(["-O2", "-g", "-w", "-target", "bpf"])
        // Above this rate of new flows it records none; test runs are faster than any network.
        .arg("-DMAX_CONN_RATE=4000000000U")
        // Headers of the C library look for the machine that they are compiled for.
        .arg(format!("-D__{machine}__"))
        .arg(format!("-I/usr/include/{machine}-linux-gnu"))
        .arg(include)
        .arg("-c")
        .arg(checkout.join(SOURCE))
        .arg("-o")
        .arg(object);
    clang
}

/// Whether a case is one of Katran's program.
pub(super) fn measured(case: &Case) -> bool {
    PAIRS.iter().any(|(_, theirs, _)| case.name == *theirs)
}

/// Both, and how they compare.
pub(super) fn table(report: &Report) -> Table {
    let rows = PAIRS.iter().map(|&(ours, theirs, what)| {
        let ours = report.case(ours).map(|case| case.above(report.pass));
        let figures = match (ours, report.case(theirs)) {
            (Some(ours), Some(theirs)) => {
                let theirs = theirs.above(report.pass);
                let ratios = ratios(&ours, &theirs);
                vec![
                    Cell::figure(&ours),
                    Cell::figure(&theirs),
                    Cell::figure(&ratios),
                ]
            }
            (ours, _) => {
                let what = "not measured: needs `--katran DIR`".to_owned();
                vec![
                    ours.map_or(Cell::Empty, |ours| Cell::figure(&ours)),
                    Cell::Missing { what },
                    Cell::Empty,
                ]
            }
        };
        Row::new(what, figures)
    });
    Table {
        id: "katran".to_owned(),
        title: "Beside Katran's program, in the same turns".to_owned(),
        of: "packet".to_owned(),
        columns: vec![
            Column::new("evenkeel", "ns", 1),
            Column::new("Katran", "ns", 1),
            Column::new("evenkeel / Katran", "", 2),
        ],
        rows: rows.collect(),
    }
}

/// That evenkeel takes no longer; nothing where it was not measured.
pub(super) fn claims(report: &Report) -> Vec<Claim> {
    let claims = PAIRS.iter().filter_map(|&(ours, theirs, what)| {
        let (ours, theirs) = (report.case(ours)?, report.case(theirs)?);
        let ratios = ratios(&ours.above(report.pass), &theirs.above(report.pass));
        let text = format!("{what}: at most 1.0 x what Katran's program takes");
        Some(at_most(text, &ratios, 1.0, "x"))
    });
    claims.collect()
}

/// What the table does not say.
pub(super) fn note() -> String {
    "Katran's program records one direction of a flow, as its backends answer clients directly; it allocates no port, \
     looks for no route and counts no streams. Its known flow is an acknowledgement, ours a request whose streams are \
     counted. Its table has as many entries as both of ours."
        .to_owned()
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cases: &[(&str, f64)]) -> Report {
        let case = |&(name, time): &(&str, f64)| Case {
            name: name.to_owned(),
            about: String::new(),
            rounds: vec![time; 5],
        };
        Report {
            packets: 1,
            pass: 100.0,
            cases: cases.iter().map(case).collect(),
            sweeps: Vec::new(),
        }
    }

    #[test]
    fn a_claim_compares_what_both_take_above_a_passing_program() {
        let claims = claims(&report(&[("opening", 400.0), ("katran_opening", 350.0)]));
        let [claim] = &claims[..] else {
            panic!("one pair was measured, so one claim; seen: {claims:?}");
        };
        assert!(!claim.holds, "300 ns against 250: {claim:?}");
        assert!(claim.seen.starts_with("1.20 x"), "seen: {}", claim.seen);
    }

    #[test]
    fn where_it_was_not_measured_the_table_names_it_and_nothing_is_claimed() {
        let report = report(&[("opening", 400.0)]);
        assert!(claims(&report).is_empty());
        let table = table(&report);
        let named = |row: &Row| matches!(&row.cells[1], Cell::Missing { what } if what.contains("--katran"));
        assert!(table.rows.iter().all(named), "seen: {:?}", table.rows);
    }

    #[test]
    fn a_directory_that_is_no_checkout_of_it_is_refused_by_name() {
        let context = Context {
            quick: true,
            seed: 1,
            katran: Some(PathBuf::from("/nonexistent/katran")),
        };
        let error = object(&context).expect_err("there is nothing to compile");
        let error = error.to_string();
        assert!(
            error.contains("/nonexistent/katran") && error.contains(SOURCE),
            "seen: {error}"
        );
    }
}
