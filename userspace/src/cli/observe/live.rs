//! The terminal while it is refreshed: a page of its own, so that what was on the terminal is there again at the end.

use std::io::{self, IsTerminal, Write};

use crate::cli::Global;
use crate::cli::output::{CLEAR, Paint, print};

/// Switches to the terminal's other page, and hides the cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
/// And back.
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// Where figures are shown while they change.
pub(super) struct Screen {
    paint: Paint,
    /// Reports are printed while observation goes on.
    live: bool,
    /// They replace each other.
    terminal: bool,
    open: bool,
}

impl Screen {
    pub(super) fn new(watch: bool, global: &Global) -> Self {
        let terminal = io::stdout().is_terminal() && !global.json;
        Self {
            paint: Paint {
                on: global.coloured(),
            },
            live: terminal || watch,
            terminal,
            open: false,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// Shows `text`, as much of it as there is room for.
    pub(super) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.terminal {
            return print(text);
        }
        let mut out = io::stdout().lock();
        if !self.open {
            out.write_all(OPEN.as_bytes())?;
            self.open = true;
        }
        let rows = rustix::termios::tcgetwinsize(io::stdout())
            .map_or(24, |size| usize::from(size.ws_row).max(2));
        let page: Vec<&str> = text.lines().take(rows - 1).collect();
        write!(out, "{CLEAR}{}", page.join("\r\n"))?;
        Ok(out.flush()?)
    }

    /// Gives the terminal back.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        if self.open {
            self.open = false;
            let mut out = io::stdout().lock();
            out.write_all(CLOSE.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whatever went wrong is told on a terminal that can be read.
        let _ = self.close();
    }
}
