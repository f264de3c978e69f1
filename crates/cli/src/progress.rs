//! Progress bars on the terminal; silent with `--no-progress` or when standard error is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts to `length` in `unit`.
pub fn bar(shown: bool, label: &str, length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), target(shown));
    let template = format!("{{prefix:22}} [{{bar:32}}] {{pos}}/{{len}} {unit} {{elapsed}} {{msg}}");
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(label.to_owned());
    bar
}

/// A spinner for work of unknown length.
pub fn spinner(shown: bool, label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(shown));
    let style = ProgressStyle::with_template("{prefix:22} {spinner} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn target(shown: bool) -> ProgressDrawTarget {
    if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
