//! What goes to stdout: tables, bars, JSON.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a text and a line break. A reader that went away (`| head`) ends the command, and is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints a value as JSON on one line, for commands that print again and again.
pub(super) fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(value)?)
}

/// Replaces what the terminal shows, where output is meant for people.
pub(super) const CLEAR: &str = "\x1b[2J\x1b[H";

/// Colours, or nothing where colour is off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) on: bool,
}

impl Paint {
    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// To which side a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows of text in aligned columns.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, each line after `indent`.
    pub(super) fn render(&self, indent: &str, paint: Paint) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
                widest.max(self.columns[column].0.len())
            })
            .collect();
        let header: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let mut text = format!("{indent}{}\n", paint.dim(&self.line(&header, &widths)));
        for row in &self.rows {
            text.push_str(indent);
            text.push_str(&self.line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded =
            cells
                .iter()
                .zip(widths)
                .zip(&self.columns)
                .map(|((cell, width_), (_, side))| {
                    let space = " ".repeat(width_.saturating_sub(width(cell)));
                    match side {
                        Side::Left => format!("{cell}{space}"),
                        Side::Right => format!("{space}{cell}"),
                    }
                });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// Characters that show: colour codes do not.
fn width(text: &str) -> usize {
    let mut shown = 0;
    let mut inside = false;
    for c in text.chars() {
        match c {
            '\x1b' => inside = true,
            'm' if inside => inside = false,
            _ if inside => {}
            _ => shown += 1,
        }
    }
    shown
}

/// A bar for a share of 0 to 1, in eighths of a character.
pub(super) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::{Paint, Side, Table, bar};

    #[test]
    fn columns_are_aligned_whatever_is_coloured() {
        let mut table = Table::new(&[("NAME", Side::Left), ("COUNT", Side::Right)]);
        table.row(vec![Paint { on: true }.bold("a"), "1".to_owned()]);
        table.row(vec!["longer".to_owned(), "12345678".to_owned()]);
        let text = table.render("", Paint { on: false });
        assert_eq!(
            text,
            "NAME       COUNT\n\x1b[1ma\x1b[0m              1\nlonger  12345678\n"
        );
    }

    #[test]
    fn bars_end_at_their_width() {
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "");
        assert_eq!(bar(1.0 / 32.0, 4), "▏");
    }
}
