//! The report of the benchmarks in a real browser, in light and in dark, in a wide window and on a phone.

mod fixture;

use std::path::Path;

use anyhow::{Result, ensure};
use xtask::bench::report::{
    browser::{self, Found},
    page,
};

/// Plots of the fixture, once in each frame.
const PLOTS: usize = 2 * 8;

/// What a browser sees of `page`; `name` is unique among tests of this process.
fn look(name: &str, page: &str, dark: bool) -> Result<Found> {
    let process = std::process::id();
    let name = format!("report-{name}-{dark}-{process}");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    browser::look(&directory, page, dark)
}

fn looks_right(dark: bool) -> Result<()> {
    let found = look("right", &page(&fixture::results()), dark)?;
    ensure!(found.complaints.is_empty(), "{:#?}", found.complaints);
    ensure!(found.plots == PLOTS && found.texts > 200, "{found:?}");
    ensure!(found.dark == dark, "asked for dark: {dark}; {found:?}");
    Ok(())
}

#[test]
fn in_light_every_plot_is_drawn_all_text_is_readable_and_nothing_runs() -> Result<()> {
    looks_right(false)
}

#[test]
fn in_dark_every_plot_is_drawn_all_text_is_readable_and_nothing_runs() -> Result<()> {
    looks_right(true)
}

/// What the tests above promise is worth something only if the probe sees it broken.
#[test]
fn the_probe_sees_what_it_is_for() -> Result<()> {
    let breaks = [
        ("class=\"line\" d=\"M", "class=\"line\" d=\"MNaN M", "NaN"),
        ("--faint: #55555c", "--faint: #cccccc", "contrast 1."),
        ("--s0: #1f6fb4", "--s0: #f8f8f8", "can hardly be seen"),
        (
            "class=\"plot\" viewBox=\"0 0 680",
            "class=\"plot\" viewBox=\"0 0 340",
            "leaves the drawing",
        ),
        ("<header>", "<header><script>1</script>", "console: "),
        (
            "<header>",
            "<header><div style=\"width: 2000px\">wide</div>",
            "wide in a window",
        ),
        (
            "id=\"host\"",
            "id=\"claims\"",
            "two elements are called claims",
        ),
    ];
    let mut bad = page(&fixture::results());
    for (intact, broken, _) in breaks {
        ensure!(bad.contains(intact), "the page has no {intact}");
        bad = bad.replacen(intact, broken, 1);
    }
    let found = look("broken", &bad, false)?;
    for (_, broken, complaint) in breaks {
        ensure!(
            found
                .complaints
                .iter()
                .any(|found| found.contains(complaint)),
            "{broken} was not noticed: {:#?}",
            found.complaints
        );
    }
    Ok(())
}
