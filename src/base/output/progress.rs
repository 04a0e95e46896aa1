//! Progress of long work, on a terminal only.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a bar moves on by itself.
const TICK: Duration = Duration::from_millis(120);

/// A bar or spinner on stderr; silent where progress is off.
/// Clones move the same bar.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Starts at zero. Without a total it counts and spins.
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
                // A bar that cannot be written is not worth an error.
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

    /// Spins beside a text that says what is being done.
    pub fn activity(label: &str, visible: bool) -> Self {
        let progress = Self::start(label, None, visible);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            progress.0.set_style(style);
        }
        progress
    }

    /// Lets something be written, or asked, without the bar in between.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Takes the bar off the screen until [`Self::show`], while something is asked.
    pub fn hide(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
    }

    /// Begins anew after [`Self::hide`].
    pub fn show(&self) {
        self.0.reset();
        if !self.0.is_hidden() {
            self.0.enable_steady_tick(TICK);
        }
    }

    /// Moves on by `steps`.
    pub fn add(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Says what is being done now.
    pub fn say(&self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(text);
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
