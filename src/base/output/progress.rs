//! Progress of long operations, on a terminal only.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::base::output::terminal::printable;

/// Interval at which a bar is redrawn without progress.
const TICK: Duration = Duration::from_millis(120);

/// A bar or spinner on stderr; hidden if progress is off. Clones advance the same bar.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Starts a bar at zero; without a total, a spinner with a counter.
    pub fn start(label: &str, total: Option<u64>, visible: bool) -> Self {
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = bar(label, total, target);
        if visible {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Starts a spinner with a label for the current action.
    pub fn activity(label: &str, visible: bool) -> Self {
        let progress = Self::start(label, None, visible);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            progress.0.set_style(style);
        }
        progress
    }

    /// Hides the bar while `write` prints.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Hides the bar until [`Self::show`], for a prompt.
    pub fn hide(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
    }

    /// Shows the bar again after [`Self::hide`], from zero.
    pub fn show(&self) {
        self.0.reset();
        if !self.0.is_hidden() {
            self.0.enable_steady_tick(TICK);
        }
    }

    /// Advances the bar by `steps`.
    pub fn add(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Sets the label for the current action.
    pub fn say(&self, text: impl AsRef<str>) {
        self.0.set_message(printable(text.as_ref()));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn bar(label: &str, total: Option<u64>, target: ProgressDrawTarget) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    bar.set_draw_target(target);
    // The bar fills the width of the terminal that the texts leave.
    let template = match total {
        Some(_) => "{msg} [{wide_bar}] {human_pos}/{human_len}{rate}{eta}",
        None => "{msg} {spinner} {human_pos}{rate}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        // A bar that cannot be drawn is not an error.
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&rate_text(state.per_sec()));
        };
        let eta = |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&eta_text(state.eta()));
        };
        bar.set_style(style.progress_chars("=> ").with_key("rate", rate).with_key("eta", eta));
    }
    bar.set_message(printable(label));
    bar
}

/// Steps per second; empty before the first step.
fn rate_text(steps_per_second: f64) -> String {
    if steps_per_second < 0.5 { String::new() } else { format!(" {steps_per_second:.0}/s") }
}

/// Estimated time left; empty if it is unknown, which indicatif reports as zero.
fn eta_text(left: Duration) -> String {
    if left.as_secs() == 0 { String::new() } else { format!(" eta {:#}", HumanDuration(left)) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 60 columns that stores the longest text written to it, the last of equal
    /// length.
    #[derive(Debug, Default)]
    struct NarrowTerminal(Arc<Mutex<String>>);

    impl NarrowTerminal {
        fn keep(&self, text: &str) -> std::io::Result<()> {
            let mut longest = self.0.lock().expect("no test panicked");
            if text.trim_end().chars().count() >= longest.chars().count() {
                *longest = text.trim_end().to_string();
            }
            Ok(())
        }
    }

    impl TermLike for NarrowTerminal {
        fn width(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.keep(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.keep(text)
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bar_fits_a_narrow_terminal() {
        let terminal = NarrowTerminal::default();
        let longest = terminal.0.clone();
        let target = ProgressDrawTarget::term_like(Box::new(terminal));
        let bar = bar("filling the database", Some(1_200_000), target);
        bar.set_position(270_000);
        bar.force_draw();
        let longest = longest.lock().expect("no test panicked").clone();
        assert!(longest.contains("270,000/1,200,000"), "{longest}");
        assert!(longest.chars().count() <= 60, "{longest}");
    }

    #[test]
    fn labels_have_no_escape_sequences() {
        let progress = Progress::start("emptying \x1b[2J", None, false);
        assert_eq!(progress.0.message(), "emptying \u{fffd}[2J");
        progress.say("waiting for \x1b]0;x\x07");
        assert_eq!(progress.0.message(), "waiting for \u{fffd}]0;x\u{fffd}");
    }

    #[test]
    fn unknown_estimates_are_not_shown() {
        assert_eq!(rate_text(0.0), "");
        assert_eq!(rate_text(491.3), " 491/s");
        assert_eq!(eta_text(Duration::ZERO), "");
        assert_eq!(eta_text(Duration::from_secs(4)), " eta 4s");
    }
}
