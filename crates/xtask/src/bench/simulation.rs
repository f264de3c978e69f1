//! The simulation operators that have a peer in Python: the example that runs ours, then the peer, on the same machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, root, run};

/// A bench with a peer.
pub struct Peer {
    /// Its name, and that of the example.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    package: &'static str,
    script: &'static str,
}

/// All of them.
pub static PEERS: [Peer; 2] = [
    Peer {
        name: "production_line",
        what: "a line of machines against exact queueing results (TWINLAKE_TESTDATA) at 1e7 parts; peer SimPy",
        package: "simpy==4.1.2",
        script: "crates/xtask/src/bench/production_line.py",
    },
    Peer {
        name: "routing",
        what: "a million ways on a grid of 200 x 200 crossings, and accessibility of all; peer pandana",
        package: "pandana",
        script: "crates/xtask/src/bench/routing.py",
    },
];

/// Runs ours, then the peer.
pub fn bench(peer: &Peer) -> Result<()> {
    let folder = crate::setup::target().join("bench").join(peer.name);
    std::fs::create_dir_all(&folder)?;
    let mut ours = cargo();
    ours.args(["run", "--release", "--package", "twinlake-simulate", "--example", peer.name]);
    let mut theirs = Command::new(python(&folder, peer.package)?);
    theirs.arg(root().join(peer.script));
    if peer.name == "routing" {
        run(ours.args(["--", "200"]).arg(&folder))?;
        return run(theirs.arg(&folder));
    }
    run(&mut ours)?;
    // Parts and seed: a part costs the peer the same whatever their number.
    run(theirs.args(["1e6", "1"]))
}

/// A Python with the package, in the folder.
fn python(folder: &std::path::Path, package: &str) -> Result<PathBuf> {
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q", package]))?;
    }
    Ok(python)
}
