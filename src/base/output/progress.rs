//! Progress of long operations, on a terminal only.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Interval at which a bar is redrawn without progress.
const TICK: Duration = Duration::from_millis(120);

/// A bar or spinner on stderr; hidden if progress is off. Clones advance the same bar.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Starts a bar at zero; without a total, a spinner with a counter.
    pub fn start(label: &str, total: Option<u64>, visible: bool) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        bar.set_draw_target(if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let template = match total {
            Some(_) => "{msg:22} [{bar:30}] {human_pos}/{human_len} {rate} eta {eta}",
            None => "{msg:22} {spinner} {human_pos} {rate}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, text: &mut dyn Write| {
                // A bar that cannot be drawn is not an error.
                let _ = write!(text, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.progress_chars("=> ").with_key("rate", rate));
        }
        bar.set_message(label.to_string());
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

    /// Hides the bar while `write` prints or asks something.
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
    pub fn say(&self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(text);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
