//! What an example prints for `cargo xtask bench OPERATOR`: sections of the operator's page, and times.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use twinlake_contracts::Result;

/// Does what the command line asks for: `validate`, sections with ours against the reference, or `speed FOLDER`, the times that
/// a peer's are set against, with files for the peer in the folder. Whether it asked for one of them.
pub fn asked(validate: impl FnOnce() -> Result<()>, speed: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("validate"), None) => validate()?,
        (Some("speed"), Some(folder)) => speed(Path::new(&folder))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Prints a section of the page: what `body` prints comes to stand there.
pub fn section(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("<!-- {name} -->");
    body()?;
    println!("<!-- end of {name} -->");
    Ok(())
}

/// Repeats until the time is known well enough, and prints the median of the wall clock and the mean of the processor
/// time. `work` returns what a reader must know of it.
pub fn measure(case: &str, at_least: usize, mut work: impl FnMut() -> Result<String>) -> Result<()> {
    let enough = Duration::from_millis(500);
    let mut note = work()?;
    let (begin, used) = (Instant::now(), processor_seconds());
    let mut seconds = Vec::new();
    while seconds.len() < at_least || (begin.elapsed() < enough && seconds.len() < 1000) {
        let start = Instant::now();
        note = work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let processor = (processor_seconds() - used) / seconds.len() as f64;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{}",
        json!({ "case": case, "system": "Twinlake", "seconds": median, "processor_seconds": processor, "note": note })
    );
    Ok(())
}

/// Processor time of all threads that live. The kernel counts it in nanoseconds; elsewhere than on Linux it is 0.
fn processor_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}
