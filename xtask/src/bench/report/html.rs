//! `report.html`: one page without scripts, fonts or images from elsewhere; a policy in its head forbids the browser to
//! load or run any, so that no name in it can.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot;
use crate::bench::{
    number::{interval, number},
    result::{Cell, Claim, Measured, Outcome, Plot, PlotKind, Point, Table},
    store::{Record, Results},
};

const STYLE: &str = include_str!("report.css");
/// Nothing from elsewhere, nothing that runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// Most rows of a table behind a plot that has a row for each x; longer ones have a row for each point.
const ROWS: usize = 64;

pub(super) fn page(results: &Results) -> String {
    let facts = &results.facts;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "evenkeel: what was measured" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "evenkeel: what was measured" }
                    (overview(results))
                    nav aria-label="Scenarios" {
                        @for record in &results.records {
                            a href={ "#" (record.outcome.name) } { (record.outcome.name) }
                        }
                        a href="#host" { "host" }
                    }
                }
                main {
                    (claims(results))
                    @for record in &results.records { (scenario(record)) }
                    section id="host" {
                        h2 { "The host" }
                        div class="scroll" tabindex="0" role="region" aria-label="The host" {
                            table class="facts" {
                                @for fact in &facts.facts {
                                    tr { th scope="row" { (fact.name) } td { (fact.value) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn overview(results: &Results) -> Markup {
    let facts = &results.facts;
    let (claims, held) = super::verdict(results);
    html! {
        p {
            strong { (held) " of " (claims) " claims hold" } ". "
            "Last run " (facts.date) " on commit " code { (facts.commit) } ": "
            (facts.host().describe()) ". "
            (super::LEGEND)
        }
        @for warning in results.warnings() { p class="warning" { (warning) } }
        @for record in results.records.iter().filter(|record| record.failure.is_some()) {
            p class="warning" { "Failed: " a href={ "#" (record.outcome.name) } { (record.outcome.name) } }
        }
        @if !results.missing.is_empty() {
            p class="warning" { "Not measured here: " (results.missing.join(", ")) }
        }
    }
}

fn claims(results: &Results) -> Markup {
    let made = results
        .records
        .iter()
        .filter(|record| !record.outcome.claims.is_empty());
    html! {
        section id="claims" {
            h2 { "What should hold" }
            div class="scroll" tabindex="0" role="region" aria-label="What should hold" {
                table {
                    thead { tr {
                        th scope="col" { "verdict" } th scope="col" { "scenario" } th scope="col" { "claim" } th scope="col" { "seen" }
                    } }
                    tbody {
                        @for Record { outcome, .. } in made {
                            @for Claim { text, seen, holds } in &outcome.claims {
                                tr {
                                    td { (verdict(*holds)) }
                                    td { a href={ "#" (outcome.name) } { (outcome.name) } }
                                    td { (text) } td { (seen) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verdict(holds: bool) -> Markup {
    html! {
        @if holds { strong class="pass" { "pass" } } @else { strong class="miss" { "miss" } }
    }
}

fn scenario(record: &Record) -> Markup {
    let Record {
        outcome,
        date,
        commit,
        host,
        failure,
    } = record;
    let Outcome {
        name,
        about,
        commands,
        seed,
        quick,
        seconds,
        tables,
        plots,
        claims,
        notes,
    } = outcome;
    html! {
        section id=(name) {
            h2 { (name) }
            p { (about) }
            p class="run" {
                @if *quick { "Quick" } @else { "Full" } " run of " (number(*seconds, 0)) " s, " (date) ", commit "
                code { (commit) } ", seed " (seed) "."
            }
            @if let Some(why) = failure { p class="warning" { "This run failed: " (why) } }
            @for note in &host.notes { p class="warning" { (note) } }
            @if let Some(unsure) = outcome.unsure() { p class="run" { (unsure) } }
            @if !claims.is_empty() {
                ul class="claims" {
                    @for Claim { text, seen, holds } in claims {
                        li { (verdict(*holds)) " " (text) ": " (seen) }
                    }
                }
            }
            @for found in plots { (figure(name, found)) }
            @for found in tables { (table(name, found)) }
            @if !notes.is_empty() { ul class="notes" { @for note in notes { li { (note) } } } }
            h3 { "To repeat it" }
            pre tabindex="0" { code { @for command in commands { (command) "\n" } } }
        }
    }
}

fn figure(scenario: &str, found: &Plot) -> Markup {
    let id = format!("{scenario}-{}", found.id);
    let hidden = plot::hidden(found);
    html! {
        figure id=(id) {
            figcaption { (found.title) }
            @if found.series.len() > 1 { (legend(found)) }
            div class="scroll" tabindex="0" role="region" aria-label=(found.title) { (plot::svg(&id, found)) }
            @if hidden > 0 {
                p class="run" { (hidden) " of the points are not above zero and have no place on a logarithmic axis." }
            }
            details {
                summary { "The figures of this plot" }
                div class="scroll" tabindex="0" role="region" aria-label="The figures of this plot" { (behind(found)) }
            }
        }
    }
}

/// Which colour and marker is which series; what screen readers need of it stands in the description and the table.
fn legend(found: &Plot) -> Markup {
    html! {
        ul class="legend" aria-hidden="true" {
            @for (index, series) in found.series.iter().enumerate() {
                li {
                    svg class={ "key " (plot::class(index)) } viewBox="0 0 28 12" {
                        @match found.kind {
                            PlotKind::Bars => rect class="bar" x="8" y="0" width="12" height="12" {},
                            PlotKind::Lines => {
                                path class="line" d="M1 6H27" {}
                                path class="mark" d=(plot::marker(index, 14.0, 6.0)) {}
                            },
                            PlotKind::Cdf => path class="line" d="M1 6H27" {},
                        }
                    }
                    (series.name)
                }
            }
        }
    }
}

/// The figures of a plot: a row for each x where the series share them, else one for each point.
fn behind(found: &Plot) -> Markup {
    let mut across: Vec<f64> = found
        .series
        .iter()
        .flat_map(|series| &series.points)
        .map(|point| point.x)
        .collect();
    across.sort_by(f64::total_cmp);
    across.dedup();
    let label = |x: f64| {
        found
            .x
            .category(x)
            .map_or_else(|| number_or_brief(x), str::to_owned)
    };
    let at = |points: &[Point], x: f64| {
        let points: Vec<String> = points
            .iter()
            .filter(|point| point.x == x)
            .map(plot::value)
            .collect();
        points.join(", ")
    };
    html! {
        table {
            @if across.len() <= ROWS {
                thead { tr {
                    th scope="col" { (found.x.title) }
                    @for series in &found.series { th scope="col" { (series.name) } }
                } }
                tbody { @for x in across { tr {
                    th scope="row" { (label(x)) }
                    @for series in &found.series { td class="figure" { (at(&series.points, x)) } }
                } } }
            } @else {
                thead { tr {
                    th scope="col" { "series" } th scope="col" { (found.x.title) } th scope="col" { (found.y.title) }
                } }
                tbody { @for series in &found.series { @for point in &series.points { tr {
                    th scope="row" { (series.name) }
                    td class="figure" { (label(point.x)) }
                    td class="figure" { (plot::value(point)) }
                } } } }
            }
        }
    }
}

fn number_or_brief(x: f64) -> String {
    if x.fract() == 0.0 {
        number(x, 0)
    } else {
        super::scale::brief(x)
    }
}

fn table(scenario: &str, found: &Table) -> Markup {
    let id = format!("{scenario}-{}", found.id);
    html! {
        h3 id=(id) { (found.title) }
        div class="scroll" tabindex="0" role="region" aria-labelledby=(id) {
            table {
                thead { tr {
                    th scope="col" { (found.of) }
                    @for column in &found.columns {
                        th scope="col" { (column.title) @if !column.unit.is_empty() { " (" (column.unit) ")" } }
                    }
                } }
                tbody { @for row in &found.rows { tr {
                    th scope="row" { (row.label) }
                    @for (column, cell) in found.columns.iter().zip(&row.cells) { (self::cell(cell, column.digits)) }
                } } }
            }
        }
    }
}

/// How often a figure was measured; nothing of one that was computed.
fn runs(measured: &Measured) -> Option<String> {
    match measured.samples.len() {
        0 => None,
        1 => Some("1 run".to_owned()),
        runs => Some(format!("{runs} runs")),
    }
}

fn cell(cell: &Cell, digits: usize) -> Markup {
    html! {
        @match cell {
            Cell::Figure(measured) => td class="figure" title=[runs(measured)] {
                (number(measured.median, digits))
                @if let Some(interval) = interval(measured, digits) { " " small { (interval) } }
            },
            Cell::Text { text } => td { (text) },
            Cell::Empty => td {},
            Cell::NotYet { wants } => td class="not-yet" { "not yet: " (wants) },
            Cell::Missing { what } => td class="missing" { "missing: " (what) },
        }
    }
}
