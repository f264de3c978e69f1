//! Starting, killing and asking the built binary.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The folder of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// The binary under test, built once a test run in the profile of the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let here = std::env::current_exe().unwrap();
        let folder = here.parent().unwrap().parent().unwrap();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.current_dir(repository()).args(["build", "--quiet", "--workspace", "--bins"]);
        build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
        // What cargo tells of the tests' package would make some build scripts run again, and all that stands on them.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the binary does not build");
        folder.join("twinlake")
    })
}

/// The larger public test data; a message says so when it is not there.
pub fn test_data(what: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: {what} needs TWINLAKE_TESTDATA");
        return None;
    };
    let path = Path::new(&folder).join(what);
    assert!(path.exists(), "TWINLAKE_TESTDATA is set, but {} is missing", path.display());
    Some(path)
}

/// A port that was free a moment ago, never given twice. It lies below the ports that systems hand out by themselves
/// (Linux from 32,768, others from 49,152), so that nobody gets it by chance while its server is being restarted.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port is free")
}

/// Runs the binary in `folder` to its end.
pub fn twinlake(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).args(arguments).output().unwrap()
}

/// Runs the binary and insists on exit code 0; gives standard output.
pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = twinlake(folder, arguments);
    assert!(
        output.status.success(),
        "twinlake {} failed ({}):\n{}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The rows that a query on the lake of `folder` gives, by the command line.
pub fn rows(folder: &Path, sql: &str) -> Vec<Value> {
    let text = succeed(folder, &["sql", "--format", "json", "-c", sql]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{sql}: {error}: {text}"))
}

/// The single number that a query gives.
pub fn number(folder: &Path, sql: &str) -> i64 {
    let rows = rows(folder, sql);
    assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
    let row = rows[0].as_object().unwrap();
    row.values().next().unwrap().as_i64().unwrap_or_else(|| panic!("{sql}: {row:?}"))
}

/// A running process of the binary; killed when dropped.
pub struct Running {
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Starts the binary in `folder`; standard error goes to a file there.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::spawn(folder, Command::new(binary()).args(arguments))
    }

    /// Starts a command in `folder`; standard error goes to a file there.
    pub fn spawn(folder: &Path, command: &mut Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let errors = folder.join(format!("stderr-{}.txt", COUNT.fetch_add(1, Ordering::Relaxed)));
        let child = command
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Self { child, errors }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What Ctrl-C sends; waits for a clean exit.
    pub fn interrupt(&mut self) {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "unclean exit {status}: {}", self.errors());
                return;
            }
            assert!(Instant::now() < deadline, "no exit a minute after Ctrl-C: {}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits, at most two minutes, until it has ended by itself with exit code 0.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "unclean exit {status}: {}", self.errors());
                return;
            }
            assert!(Instant::now() < deadline, "no end after two minutes: {}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Panics with standard error when the process has ended by itself.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("ended by itself ({status}): {}", self.errors());
        }
    }

    /// What it said on standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until somebody listens on a port of 127.0.0.1.
pub fn wait_for_port(port: u16, process: &mut Running) {
    wait_until("a listener", || {
        process.assert_alive();
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// Waits, at most a minute, until `holds`.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A generator of reproducible numbers (Steele, Lea, Flood 2014: SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
