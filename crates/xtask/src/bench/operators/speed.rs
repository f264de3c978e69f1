//! Times of ours and of the peers on the same cases, as a table.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How our own times are called.
const OURS: &str = "Twinlake";

/// A line that an example or a peer's script prints; lines that are no JSON objects are for people.
#[derive(Clone, Serialize, Deserialize)]
pub struct Measurement {
    /// Same name, same work.
    pub case: String,
    pub system: String,
    /// Wall clock, the median where it was repeated.
    pub seconds: f64,
    /// Processor time of the same work, on all threads.
    pub processor_seconds: f64,
    /// What a reader must know of it, e.g. how far it came.
    #[serde(default)]
    pub note: String,
}

impl Measurement {
    /// All that a program has printed.
    pub fn read(printed: &str) -> Result<Vec<Self>> {
        let lines = printed.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

/// The table of a page: a row a case and system, with how many times as long as ours it took.
pub fn table(name: &str, machine: &str, measured: &[Measurement]) -> String {
    let mut text = format!(
        "`cargo xtask bench {name}` on {machine}. One run for all, which shared the machine with other work, so processor time \
         (all threads) stands beside the wall clock; a ratio above 1 says that ours took less.\n\n\
         | case | system | wall | processor | wall / ours | processor / ours | |\n|---|---|---:|---:|---:|---:|---|\n"
    );
    let mut cases: Vec<&str> = Vec::new();
    for one in measured {
        if !cases.contains(&one.case.as_str()) {
            cases.push(&one.case);
        }
    }
    for case in cases {
        let of_case = || measured.iter().filter(|one| one.case == case);
        let ours = of_case().find(|one| one.system == OURS);
        for one in of_case() {
            let ratio = |of: fn(&Measurement) -> f64| {
                ours.filter(|ours| ours.system != one.system && of(ours) > 0.0)
                    .map_or_else(String::new, |ours| format!("{:.2}", of(one) / of(ours)))
            };
            let _ = writeln!(
                text,
                "| {case} | {} | {} | {} | {} | {} | {} |",
                one.system,
                shown(one.seconds),
                shown(one.processor_seconds),
                ratio(|one| one.seconds),
                ratio(|one| one.processor_seconds),
                one.note
            );
        }
    }
    text
}

/// A time in the unit that suits it.
fn shown(seconds: f64) -> String {
    if seconds >= 1.0 { format!("{seconds:.2} s") } else { format!("{:.3} ms", seconds * 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_set_against_ours_case_by_case() {
        let measured = Measurement::read(
            "for people\n{\"case\":\"A\",\"system\":\"Twinlake\",\"seconds\":0.5,\"processor_seconds\":1.0}\n\
             {\"case\":\"A\",\"system\":\"Peer\",\"seconds\":2.0,\"processor_seconds\":2.5,\"note\":\"gap 1e-4\"}\n\
             {\"case\":\"B\",\"system\":\"Peer\",\"seconds\":2.0,\"processor_seconds\":2.0}\n",
        )
        .unwrap();
        let text = table("x", "here", &measured);
        assert!(text.contains("| A | Twinlake | 500.000 ms | 1.00 s |  |  |  |"), "{text}");
        assert!(text.contains("| A | Peer | 2.00 s | 2.50 s | 4.00 | 2.50 | gap 1e-4 |"), "{text}");
        assert!(text.contains("| B | Peer | 2.00 s | 2.00 s |  |  |  |"), "{text}");
        assert!(Measurement::read("{\"case\":1}").is_err());
    }
}
