//! What people see: colour only on a terminal, one line of progress for what takes longer than a second.
//! Progress goes to standard error, results to standard output.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _, stderr, stdout},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long something may take in silence.
const SILENCE: Duration = Duration::from_secs(1);

/// SGR colours (ECMA-48, 8.3.117).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Bold, for titles.
    Bold,
    /// Faint, for what may be skipped.
    Faint,
    /// All is well.
    Green,
    /// Look here.
    Yellow,
    /// Wrong.
    Red,
    /// Neutral figure.
    Cyan,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

/// `text` in `colour` if standard output is a terminal that wants it (`NO_COLOR` is honoured).
#[must_use]
pub fn paint(colour: Colour, text: impl Display) -> String {
    if stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{}m{text}\x1b[0m", colour.code())
    } else {
        text.to_string()
    }
}

/// A bar of `width` cells, `share` (0 to 1) of them filled, to an eighth of a cell.
#[must_use]
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let cells = bar.chars().count();
    bar.push_str(&" ".repeat(width - cells));
    bar
}

/// A duration as people say it: `840 ms`, `3.2 s`, `2 min 5 s`.
#[must_use]
pub fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// `12345` as `12,345`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// When the whole of a longer work is expected to end, and what of it comes after its present part.
static EXPECTED: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);

/// Has every line of progress say how long it is until `end`. The guess never falls below `later`, what is still to
/// come after the part that runs now.
pub fn expect_end(end: Option<Instant>, later: Duration) {
    *EXPECTED.lock().unwrap_or_else(PoisonError::into_inner) = end.map(|end| (end, later));
}

/// The time left as [`expect_end`] was told, for the end of a line of progress.
fn left() -> String {
    let expected = *EXPECTED.lock().unwrap_or_else(PoisonError::into_inner);
    expected.map_or_else(String::new, |(end, later)| {
        let left = end.saturating_duration_since(Instant::now()).max(later);
        // To the second: tenths of a guess only flicker.
        format!(
            "  (about {} left)",
            spell(Duration::from_secs(left.as_secs().max(1)))
        )
    })
}

/// One line of progress: appears after a second, is kept up to date on a terminal, says how long it took at the end.
pub struct Progress {
    title: String,
    begun: Instant,
    note: Arc<Mutex<String>>,
    stop: Option<Sender<()>>,
    ticker: Option<JoinHandle<bool>>,
}

impl Progress {
    /// Starts the clock of `title`.
    #[must_use]
    pub fn start(title: &str) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let note = Arc::new(Mutex::new(String::new()));
        let begun = Instant::now();
        let ticker = {
            let (title, note) = (title.to_owned(), Arc::clone(&note));
            thread::spawn(move || {
                let mut wait = SILENCE;
                let mut shown = false;
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                    let note = note.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if stderr().is_terminal() {
                        let left = left();
                        eprint!(
                            "\r\x1b[2K  {title} … {}{note}{left}",
                            spell(begun.elapsed())
                        );
                        let _ = stderr().flush();
                        wait = Duration::from_millis(200);
                    } else if !shown {
                        eprintln!("  {title} …");
                    }
                    shown = true;
                }
                shown
            })
        };
        Self {
            title: title.to_owned(),
            begun,
            note,
            stop: Some(stop),
            ticker: Some(ticker),
        }
    }

    /// Replaces what stands behind the elapsed time.
    pub fn note(&self, note: impl Display) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = format!("  {note}");
    }

    /// Ends the line with the time taken, if it ever appeared.
    pub fn done(mut self) {
        self.end("done in");
    }

    /// Takes the line away again, where that is possible: what follows tells it better.
    pub fn clear(mut self) {
        drop(self.stop.take());
        let shown = self
            .ticker
            .take()
            .is_some_and(|ticker| ticker.join().unwrap_or(false));
        if shown && stderr().is_terminal() {
            eprint!("\r\x1b[2K");
        }
    }

    /// Ends the line as failed.
    pub fn failed(mut self) {
        self.end("failed after");
    }

    fn end(&mut self, how: &str) {
        drop(self.stop.take());
        let Some(ticker) = self.ticker.take() else {
            return;
        };
        if ticker.join().unwrap_or(false) {
            let clear = if stderr().is_terminal() {
                "\r\x1b[2K"
            } else {
                ""
            };
            eprintln!(
                "{clear}  {}: {how} {}",
                self.title,
                spell(self.begun.elapsed())
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end("stopped after");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_wide_as_asked() {
        for share in [-1.0, 0.0, 0.01, 0.25, 1.0 / 3.0, 0.999, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(share, 30).chars().count(), 30, "{share}");
        }
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
