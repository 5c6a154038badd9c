//! How far a sync is: a bar when somebody looks at stderr, a log line every ten seconds otherwise.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::node::view::Progress;
use crate::output::seconds;

/// Between two lines in a log: a sync of minutes leaves tens of lines, one of hours some hundreds.
pub const LINE_EVERY: Duration = Duration::from_secs(10);

/// Weight of the newest measurement in the rate. A third forgets a slow peer within a few measurements and does
/// not jump with each batch.
const RATE_WEIGHT: f64 = 1.0 / 3.0;
/// Shorter spans measure the batching, not the rate.
const RATE_SPAN: Duration = Duration::from_millis(500);

/// Headers per second, smoothed, and when the target will be reached.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    last: Option<(Duration, u64)>,
    per_second: Option<f64>,
}

impl Rate {
    /// Takes the number of headers at a time.
    pub fn measure(&mut self, at: Duration, headers: u64) {
        let Some((before, count)) = self.last else {
            self.last = Some((at, headers));
            return;
        };
        let span = at.saturating_sub(before);
        if span < RATE_SPAN {
            return;
        }
        let now = headers.saturating_sub(count) as f64 / span.as_secs_f64();
        self.per_second = Some(match self.per_second {
            Some(old) => now.mul_add(RATE_WEIGHT, old * (1.0 - RATE_WEIGHT)),
            None => now,
        });
        self.last = Some((at, headers));
    }

    /// Headers per second, once known.
    pub const fn per_second(&self) -> Option<f64> {
        self.per_second
    }

    /// Time to the target at this rate, when it is known and moves at all.
    pub fn eta(&self, progress: &Progress) -> Option<Duration> {
        let missing = f64::from(progress.target.saturating_sub(progress.height));
        let rate = self.per_second.filter(|rate| *rate >= 1.0 / 60.0)?;
        Duration::try_from_secs_f64(missing / rate).ok()
    }
}

/// One line that says where the sync is.
pub fn line(progress: &Progress, rate: &Rate) -> String {
    let Progress { height, target, peers, .. } = progress;
    if progress.peers == 0 {
        return format!("height {height}, no peers connected");
    }
    if progress.at_tip {
        return format!("height {height}, at the tip of {peers} peers");
    }
    // A share of the way, so that half a sync is half a sync however long the chain.
    let percent = u64::from(*height) * 100 / u64::from((*target).max(1));
    let mut text = format!("height {height} of {target} ({percent} %), {peers} peers");
    if let Some(rate) = rate.per_second() {
        text += &format!(", {rate:.0} headers/s");
    }
    if let Some(eta) = rate.eta(progress) {
        text += &format!(", {} to go", seconds(eta.as_secs()));
    }
    text
}

/// The bar that is on the terminal, if one is: log lines step aside for it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes to stderr above the bar.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(|| std::io::stderr().write(buf)),
            None => std::io::stderr().write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Shows progress as it comes.
#[derive(Debug)]
pub struct Display {
    bar: Option<ProgressBar>,
    rate: Rate,
    next_line: Duration,
}

impl Display {
    /// A bar on a terminal, lines elsewhere. `title` is a word or two.
    pub fn new(title: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| new_bar(title));
        BAR.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bar);
        Self { bar, rate: Rate::default(), next_line: LINE_EVERY }
    }

    /// Lines only, for a node that stays.
    pub fn lines() -> Self {
        Self { bar: None, rate: Rate::default(), next_line: LINE_EVERY }
    }

    /// Shows where it is, `at` this time since the start.
    pub fn show(&mut self, at: Duration, progress: &Progress) {
        self.rate.measure(at, progress.headers);
        if let Some(bar) = &self.bar {
            bar.set_length(u64::from(progress.target.max(progress.height)));
            bar.set_position(u64::from(progress.height));
            let eta =
                self.rate.eta(progress).map_or_else(String::new, |eta| seconds(eta.as_secs()) + " to go");
            bar.set_message(format!(
                "{:.0}/s  {} peers  {eta}",
                self.rate.per_second().unwrap_or(0.0),
                progress.peers
            ));
        } else if at >= self.next_line {
            self.next_line = at + LINE_EVERY;
            tracing::info!(target: "rookery", "{}", line(progress, &self.rate));
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
            bar.finish_and_clear();
        }
    }
}

fn new_bar(title: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len}  {msg}")
        .expect("the template is a constant that the tests draw");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(title);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: u32) -> Progress {
        Progress { height, target: 10_000, headers: u64::from(height), peers: 3, ..Progress::default() }
    }

    #[test]
    fn a_steady_sync_ends_when_it_was_said_to() {
        let mut rate = Rate::default();
        for second in 0..5 {
            rate.measure(Duration::from_secs(second), second * 1_000);
        }
        assert_eq!(rate.eta(&at(4_000)), Some(Duration::from_secs(6)));
        assert_eq!(line(&at(4_000), &rate), "height 4000 of 10000 (40 %), 3 peers, 1000 headers/s, 6s to go");
    }

    #[test]
    fn a_stalled_sync_promises_nothing() {
        let mut rate = Rate::default();
        rate.measure(Duration::ZERO, 5);
        rate.measure(Duration::from_secs(60), 5);
        assert_eq!(rate.eta(&at(5)), None);
    }

    #[test]
    fn the_ends_are_said_in_words() {
        let rate = Rate::default();
        assert_eq!(line(&Progress { peers: 0, ..at(1) }, &rate), "height 1, no peers connected");
        assert_eq!(line(&Progress { at_tip: true, ..at(9) }, &rate), "height 9, at the tip of 3 peers");
    }

    #[test]
    fn the_bar_s_template_is_valid() {
        new_bar("test").finish_and_clear();
    }
}
