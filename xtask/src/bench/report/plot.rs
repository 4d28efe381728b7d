//! Plots as SVG, drawn here and not by a plotting crate: colours, strokes and text must be the page's CSS variables to
//! follow light and dark, every mark has a title to point at, every plot a name and a description for screen readers.
//!
//! Nothing of a plot depends on colour alone: series also differ in markers, from the ninth on in dashes, and the
//! figures stand in a table behind the plot.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::scale::{Scale, brief};
use crate::bench::result::{Plot, PlotKind, Point, Series};

/// Size of the drawing in its own units; the page scales it.
const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 380.0;
/// Room for the vertical axis' figures and title, and at the other sides.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 18.0;
/// A figure of 11 units stands 4 above a bar that is as high as the axis.
const TOP: f64 = 20.0;
const BOTTOM: f64 = 54.0;
/// Width of a letter beside an axis, on average in a wide typeface; titles are a tenth larger.
const LETTER: f64 = 7.4;
/// Colours that the style sheet knows.
pub(super) const COLOURS: usize = 8;
/// Longest name of a category in letters; the whole name stands in its title.
const LONGEST: f64 = 22.0;
/// Up to how many bars have their figure written above.
const WRITTEN: usize = 14;

/// The classes of series `index`: its colour, and its dashes once colours repeat.
pub(super) fn class(index: usize) -> String {
    let dashes = if index >= COLOURS { " dashed" } else { "" };
    format!("s{}{dashes}", index % COLOURS)
}

/// The drawing. `id` is unique on the page.
pub(super) fn svg(id: &str, plot: &Plot) -> Markup {
    let canvas = Canvas::new(plot);
    let (title, description) = (format!("{id}-title"), format!("{id}-desc"));
    html! {
        svg class="plot" viewBox={ "0 0 " (WIDTH) " " (canvas.height) } role="img"
            aria-labelledby=(title) aria-describedby=(description) {
            title id=(title) { (plot.title) }
            desc id=(description) { (describe(plot)) }
            (canvas.axes())
            g class="marks" {
                @for (index, series) in plot.series.iter().enumerate() {
                    g class=(class(index)) {
                        @match plot.kind {
                            PlotKind::Bars => (canvas.bars(index, series)),
                            PlotKind::Lines => (canvas.lines(index, series)),
                            PlotKind::Cdf => (canvas.steps(series)),
                        }
                    }
                }
            }
        }
    }
}

/// What a plot shows, for who does not see it.
fn describe(plot: &Plot) -> String {
    let kind = match plot.kind {
        PlotKind::Bars => "Bars",
        PlotKind::Lines => "Lines, each in a band of its intervals",
        PlotKind::Cdf => "Cumulative distribution",
    };
    let names: Vec<&str> = plot
        .series
        .iter()
        .map(|series| series.name.as_str())
        .collect();
    format!(
        "{kind}: {} over {}, for {}. The figures are in the table below the plot.",
        plot.y.title,
        plot.x.title,
        names.join(", ")
    )
}

/// How many points have no place: nothing that is not above zero has one on a logarithmic axis.
pub(super) fn hidden(plot: &Plot) -> usize {
    let canvas = Canvas::new(plot);
    let points = plot.series.iter().flat_map(|series| &series.points);
    points
        .filter(|point| canvas.at(point.x, point.y).is_none())
        .count()
}

/// The area that is drawn on.
struct Canvas<'a> {
    plot: &'a Plot,
    x: Scale,
    y: Scale,
    height: f64,
    bottom: f64,
    slanted: bool,
    /// Letters of a category's name that there is room for.
    letters: usize,
}

impl<'a> Canvas<'a> {
    fn new(plot: &'a Plot) -> Self {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        let heights = points().flat_map(|point| [point.low, point.y, point.high]);
        let x = Scale::new(&plot.x, points().map(|point| point.x), None);
        let y = match plot.kind {
            PlotKind::Cdf => Scale::new(&plot.y, [0.0, 1.0].into_iter(), Some(0.0)),
            PlotKind::Bars | PlotKind::Lines => Scale::new(&plot.y, heights, Some(0.0)),
        };
        let slot = (WIDTH - LEFT - RIGHT) / plot.x.categories.len().max(1) as f64;
        let longest = plot.x.categories.iter().map(|name| name.chars().count());
        let longest = (longest.max().unwrap_or(0) as f64).min(LONGEST);
        let slanted = longest * LETTER > slot;
        // Slanted by 35 degrees (cos 0.82, sin 0.57) a name reaches back from the middle of its slot, the first one as
        // far as the edge.
        let room = ((LEFT + slot / 2.0) / (LETTER * 0.82)).min(LONGEST);
        let letters = if slanted { longest.min(room) } else { longest };
        let more = if slanted {
            letters * LETTER * 0.57
        } else {
            0.0
        };
        Self {
            plot,
            x,
            y,
            height: HEIGHT + more,
            bottom: HEIGHT - BOTTOM,
            slanted,
            letters: letters as usize,
        }
    }

    fn across(&self, x: f64) -> Option<f64> {
        self.x
            .place(x)
            .map(|place| LEFT + place * (WIDTH - LEFT - RIGHT))
    }

    fn up(&self, y: f64) -> Option<f64> {
        self.y
            .place(y)
            .map(|place| self.bottom - place * (self.bottom - TOP))
    }

    fn at(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.across(x)?, self.up(y)?))
    }

    fn axes(&self) -> Markup {
        let Self {
            plot,
            bottom,
            height,
            ..
        } = self;
        let (right, middle) = (WIDTH - RIGHT, TOP.midpoint(*bottom));
        html! {
            g class="axes" aria-hidden="true" {
                @for (value, label) in self.y.ticks() {
                    @if let Some(y) = self.up(value) {
                        line class="grid" x1=(LEFT) x2=(right) y1=(short(y)) y2=(short(y)) {}
                        text class="tick" x=(LEFT - 8.0) y=(short(y + 4.0)) text-anchor="end" { (label) }
                    }
                }
                @for (value, label) in self.x.ticks() {
                    @if let Some(x) = self.across(value) {
                        // Half of a label reaches beyond its tick; at the edge of the drawing there may be no room.
                        @let least = WIDTH - label.chars().count() as f64 * LETTER / 2.0;
                        line class="grid" x1=(short(x)) x2=(short(x)) y1=(TOP) y2=(bottom) {}
                        text class="tick" x=(short(x.min(least))) y=(bottom + 18.0) text-anchor="middle" { (label) }
                    }
                }
                @for (index, name) in plot.x.categories.iter().enumerate() {
                    @if let Some(x) = self.across(index as f64) { (self.category(x, name)) }
                }
                line class="axis" x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
                text class="title" x=(LEFT.midpoint(right)) y=(height - 10.0) text-anchor="middle" { (cut(&plot.x.title, right - LEFT)) }
                text class="title" transform={ "translate(16 " (short(middle)) ") rotate(-90)" } text-anchor="middle" { (cut(&plot.y.title, bottom - TOP)) }
            }
        }
    }

    fn category(&self, x: f64, name: &str) -> Markup {
        let shown = shorten(name, self.letters);
        let y = self.bottom + 18.0;
        html! {
            @if self.slanted {
                text class="tick" text-anchor="end"
                    transform={ "translate(" (short(x + 4.0)) " " (y - 4.0) ") rotate(-35)" } {
                    title { (name) } (shown)
                }
            } @else {
                text class="tick" text-anchor="middle" x=(short(x)) y=(y) { title { (name) } (shown) }
            }
        }
    }

    fn bars(&self, index: usize, series: &Series) -> Markup {
        let count = self.plot.series.len().max(1) as f64;
        let groups = match self.plot.x.categories.len() {
            0 => self
                .plot
                .series
                .iter()
                .map(|series| series.points.len())
                .max()
                .unwrap_or(1),
            named => named,
        };
        let width = (WIDTH - LEFT - RIGHT) / groups.max(1) as f64 * 0.8 / count;
        let bars: usize = self
            .plot
            .series
            .iter()
            .map(|series| series.points.len())
            .sum();
        html! {
            @for point in &series.points {
                @if let Some((middle, top)) = self.at(point.x, point.y) {
                    @let left = middle + (index as f64 - count / 2.0) * width;
                    @let centre = left + width / 2.0;
                    rect class="bar" x=(short(left + width * 0.04)) y=(short(top)) width=(short(width * 0.92))
                        height=(short((self.bottom - top).max(0.0))) { title { (self.title(series, point)) } }
                    (self.whisker(centre, point))
                    @if bars <= WRITTEN {
                        @let above = self.up(point.high.max(point.y)).unwrap_or(top);
                        text class="value" x=(short(centre)) y=(short(above - 4.0)) text-anchor="middle" {
                            (brief(point.y))
                        }
                    }
                }
            }
        }
    }

    fn whisker(&self, x: f64, point: &Point) -> Markup {
        let ends = self
            .up(point.low.max(self.floor()))
            .zip(self.up(point.high));
        html! {
            @if let Some((low, high)) = ends.filter(|_| point.high > point.low) {
                path class="whisker" d={
                    "M" (short(x)) " " (short(low)) "V" (short(high))
                    "M" (short(x - 4.0)) " " (short(low)) "h8M" (short(x - 4.0)) " " (short(high)) "h8"
                } {}
            }
        }
    }

    fn lines(&self, index: usize, series: &Series) -> Markup {
        let mut points: Vec<&Point> = series.points.iter().collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let floor = self.floor();
        let band = points.iter().any(|point| point.high > point.low);
        let upper = points
            .iter()
            .filter_map(|point| self.at(point.x, point.high));
        let lower = points
            .iter()
            .rev()
            .filter_map(|point| self.at(point.x, point.low.max(floor)));
        let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
        let line: Vec<(f64, f64)> = points
            .iter()
            .filter_map(|point| self.at(point.x, point.y))
            .collect();
        html! {
            @if band && outline.len() > 2 { path class="band" d=(path(&outline) + "Z") {} }
            @if line.len() > 1 { path class="line" d=(path(&line)) {} }
            @for point in &points {
                @if let Some((x, y)) = self.at(point.x, point.y) {
                    // One point has no band to show its interval.
                    @if line.len() == 1 { (self.whisker(x, point)) }
                    path class="mark" d=(marker(index, x, y)) { title { (self.title(series, point)) } }
                }
            }
        }
    }

    /// Steps up at each value: the share of values of at most x.
    fn steps(&self, series: &Series) -> Markup {
        let mut points: Vec<&Point> = series.points.iter().collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut line = String::new();
        for point in points {
            let Some((x, y)) = self.at(point.x, point.y) else {
                continue;
            };
            let _ = match line.is_empty() {
                true => write!(line, "M{} {}V{}", short(x), short(self.bottom), short(y)),
                false => write!(line, "H{}V{}", short(x), short(y)),
            };
        }
        if !line.is_empty() {
            let _ = write!(line, "H{}", short(WIDTH - RIGHT));
        }
        html! {
            @if !line.is_empty() { path class="line" d=(line) { title { (series.name) } } }
        }
    }

    /// The least that the vertical axis shows.
    fn floor(&self) -> f64 {
        match self.y {
            Scale::Linear { low, .. } | Scale::Logarithmic { low, .. } => low,
            Scale::Categories { .. } => 0.0,
        }
    }

    fn title(&self, series: &Series, point: &Point) -> String {
        let across = match self.plot.x.category(point.x) {
            Some(name) => name.to_owned(),
            None => format!("{} {}", self.plot.x.title, brief(point.x)),
        };
        format!("{}, {across}: {}", series.name, value(point))
    }
}

/// `title` as far as there is room for it; the whole of it stands in the description and in the table.
fn cut(title: &str, room: f64) -> String {
    shorten(title, (room / (LETTER * 1.1)) as usize)
}

/// At most so many letters.
fn shorten(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars()
        .take(letters.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// A point's figure with its interval.
pub(super) fn value(point: &Point) -> String {
    let figure = brief(point.y);
    if point.high > point.low {
        format!("{figure} [{} to {}]", brief(point.low), brief(point.high))
    } else {
        figure
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let _ = write!(
            path,
            "{}{} {}",
            if index == 0 { 'M' } else { 'L' },
            short(*x),
            short(*y)
        );
    }
    path
}

/// Circle, square, diamond, triangle: told apart without colour.
pub(super) fn marker(index: usize, x: f64, y: f64) -> String {
    let (x, y) = (short(x), short(y));
    match index % 4 {
        0 => format!("M{x} {y}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z"),
        1 => format!("M{x} {y}m-3.6 -3.6h7.2v7.2h-7.2Z"),
        2 => format!("M{x} {y}m0 -5l5 5l-5 5l-5 -5Z"),
        _ => format!("M{x} {y}m0 -5l4.6 8h-9.2Z"),
    }
}

/// Tenths of a unit are finer than anybody sees.
fn short(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
