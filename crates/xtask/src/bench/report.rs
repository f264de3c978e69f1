//! What a benchmark leaves in `docs/benchmarks/`: the figures as JSON, a table, and a plot.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::run::{root, run};
use crate::setup::python_environment;

/// One measured case; what was not measured is null.
#[derive(Clone, Default, Serialize)]
pub struct Case {
    /// Cases of one group are compared with one another.
    pub group: String,
    pub system: String,
    pub load: String,
    /// What `rate` counts: lines, messages, rows.
    pub unit: String,
    pub per_second: f64,
    /// Values a second, where one line has several.
    pub values_per_second: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    /// Processor time of the server for one of `unit`.
    pub cpu_us: Option<f64>,
    pub peak_mib: Option<f64>,
}

/// All cases of a run.
#[derive(Serialize)]
pub struct Report {
    pub name: &'static str,
    pub title: &'static str,
    pub machine: String,
    /// Paragraphs above the table.
    pub about: Vec<String>,
    pub cases: Vec<Case>,
    /// Paragraphs below it: what does not fit a table.
    pub notes: Vec<String>,
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

impl Report {
    /// Notes a case and shows it.
    pub fn add(&mut self, case: Case) {
        println!("{}", row(&case));
        self.cases.push(case);
    }

    /// Notes a sentence and shows it.
    pub fn note(&mut self, text: String) {
        println!("{text}");
        self.notes.push(text);
    }

    /// Writes `docs/benchmarks/NAME.{json,md,svg}`.
    pub fn write(&self) -> Result<()> {
        let folder = root().join("docs/benchmarks");
        fs::create_dir_all(&folder)?;
        let file = |extension: &str| folder.join(format!("{}.{extension}", self.name));
        fs::write(file("json"), serde_json::to_string_pretty(self)? + "\n")?;
        let mut text =
            format!("# {}\n\n`cargo xtask bench {}` on {}\n\n", self.title, self.name, self.machine);
        for paragraph in &self.about {
            text.extend([paragraph.as_str(), "\n\n"]);
        }
        text += HEAD;
        for case in &self.cases {
            text += &row(case);
            text.push('\n');
        }
        text.extend(["\n![the same as a plot](", self.name, ".svg)\n"]);
        for note in &self.notes {
            text.extend(["\n", note.as_str(), "\n"]);
        }
        fs::write(file("md"), text)?;
        let script = root().join("crates/xtask/src/bench/plot.py");
        let python = python_environment().join("bin/python");
        run(Command::new(python).arg(script).args([file("json"), file("svg")]))
            .context("the plot needs the Python environment that `cargo xtask test` sets up")
    }
}

/// The head of the table.
pub const HEAD: &str = "| what | system | load | per second | values/s | p50 ms | p99 ms | p99.9 ms | CPU µs each | peak MiB |\n\
                        |---|---|---|---|---|---|---|---|---|---|\n";

fn row(case: &Case) -> String {
    format!(
        "| {} | {} | {} | {:.0} {} | {} | {} | {} | {} | {} | {} |",
        case.group,
        case.system,
        case.load,
        case.per_second,
        case.unit,
        cell(case.values_per_second, 0),
        cell(case.p50_ms, 1),
        cell(case.p99_ms, 1),
        cell(case.p999_ms, 1),
        cell(case.cpu_us, 2),
        cell(case.peak_mib, 0),
    )
}
