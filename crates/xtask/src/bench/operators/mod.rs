//! The simulation operators: their validation against published truth, and their speed beside that of their peers.
//!
//! `cargo xtask bench OPERATOR` runs the example of that name three times over: `validate` prints the tables that say how far
//! ours is from the reference, `speed` the times of ours, and the script of the same name those of the peers. What comes out
//! replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in `docs/operators`, and makes the plot there. So
//! no figure of those pages is typed by hand. The reference and the cases are read from `TWINLAKE_TESTDATA`.

mod page;
mod speed;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root, run};
use crate::setup::target;
use page::Page;
use speed::Measurement;

/// An operator, or a family of them that shares a page.
pub struct Bench {
    /// Its name, that of the example and that of the peers' script.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// The page in `docs/operators`, without its extension.
    page: &'static str,
    /// What the peers' script imports, with the versions that were measured.
    packages: &'static [&'static str],
    /// How the plot names what is compared.
    title: &'static str,
}

/// All of them.
pub static OPERATORS: [Bench; 5] = [
    Bench {
        name: "traffic_assignment",
        what: "five networks with published optima, to a relative gap of 1e-10; time to 1e-4, peer AequilibraE",
        page: "traffic_assignment",
        packages: &["aequilibrae==1.7.2"],
        title: "traffic_assignment: relative gap 1e-4",
    },
    Bench {
        name: "power_flow",
        what: "voltages of thirteen MATPOWER cases; peers pandapower and lightsim2grid",
        page: "power_flow",
        packages: &["pandapower==3.5.6", "numba", "lightsim2grid==1.2.0"],
        title: "power_flow: AC from a flat start",
    },
    Bench {
        name: "water_network",
        what: "heads and quality of eighteen networks; peer EPANET 2.3's C engine",
        page: "water_network",
        packages: &["owa-epanet==2.3.5"],
        title: "water_network: hydraulics",
    },
    Bench {
        name: "production_line",
        what: "exact results of queueing theory at 1e7 parts; peer SimPy",
        page: "production_line",
        packages: &["simpy==4.1.2"],
        title: "production_line: 1e6 parts",
    },
    Bench {
        name: "routing",
        what: "ways of pairs and accessibility of all nodes; peer pandana",
        page: "route",
        packages: &["pandana==0.8"],
        title: "route and accessibility",
    },
];

/// Runs one operator: validation, ours, the peers; then writes its page.
pub fn bench(operator: &Bench) -> Result<()> {
    if std::env::var_os("TWINLAKE_TESTDATA").is_none() {
        bail!("set TWINLAKE_TESTDATA to the folder of test data: it holds the references and the cases");
    }
    let folder = target().join("bench").join(operator.name);
    std::fs::create_dir_all(&folder)?;
    let mut page = Page::read(&root().join("docs/operators").join(format!("{}.md", operator.page)))?;
    page.replace_sections(&shown(example(operator.name).arg("validate"))?)?;

    let python = python(&folder, operator.packages)?;
    let script = root().join("crates/xtask/src/bench/operators").join(format!("{}.py", operator.name));
    let mut measured = Measurement::read(&shown(example(operator.name).arg("speed").arg(&folder))?)?;
    let peers = shown(Command::new(&python).arg(script).arg(&folder))?;
    measured.extend(Measurement::read(&peers)?);
    if peers.contains("<!-- ") {
        page.replace_sections(&peers)?;
    }
    let machine = super::process::machine(&[]);
    page.replace("speed", &speed::table(operator.name, &machine, &measured))?;
    page.write()?;
    plot(operator, &machine, &measured)
}

fn example(name: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--release", "--package", "twinlake-simulate", "--example", name, "--"]);
    command
}

/// The standard output of a command that must succeed, shown, too.
fn shown(command: &mut Command) -> Result<String> {
    eprintln!("$ {command:?}");
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot start")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    if !output.status.success() {
        bail!("failed ({}): {command:?}", output.status);
    }
    Ok(text)
}

/// Writes the figures as JSON and draws them beside the page.
fn plot(operator: &Bench, machine: &str, measured: &[Measurement]) -> Result<()> {
    let file = |extension: &str| root().join(format!("docs/operators/{}.{extension}", operator.page));
    let figures = serde_json::json!({
        "name": operator.page, "title": operator.title, "machine": machine, "cases": measured,
    });
    std::fs::write(file("json"), serde_json::to_string_pretty(&figures)? + "\n")?;
    let python = python(&target().join("bench").join("plot"), &["matplotlib==3.9.2"])?;
    let script = root().join("crates/xtask/src/bench/operators/plot.py");
    run(Command::new(python).arg(script).args([file("json"), file("svg")]))
}

/// A Python with the packages, in the folder.
fn python(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let environment = folder.join("python");
    let (python, marker) = (environment.join("bin/python"), environment.join("installed.txt"));
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).args(packages))?;
    std::fs::write(marker, wanted)?;
    Ok(python)
}
