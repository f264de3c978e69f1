//! The notebooks run against a started service.

use std::process::Command;

use crate::demo::demo;
use crate::support::{Running, free_port, repository, wait_for_port};

#[test]
fn three_tenses_runs_from_top_to_bottom() {
    let python = std::env::var("TWINLAKE_PYTHON")
        .expect("TWINLAKE_PYTHON names the Python of the tests: run cargo xtask test");
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(demo().0.path().join("twinlake-data"))
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let (http, postgres, mqtt) = (free_port(), free_port(), free_port());
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut process = Running::start(
        folder.path(),
        &["serve", "--http", &address(http), "--postgres", &address(postgres), "--mqtt", &address(mqtt)],
    );
    wait_for_port(postgres, &mut process);
    let script = "import sys, nbformat\nfrom nbclient import NotebookClient\n\
                  book = nbformat.read(sys.argv[1], as_version=4)\n\
                  NotebookClient(book, timeout=120, kernel_name='python3').execute()\n\
                  nbformat.write(book, sys.argv[2])\n\
                  pictures = sum('image/png' in output.get('data', {}) for cell in book.cells for output in cell.get('outputs', []))\n\
                  print('cells', len(book.cells), 'pictures', pictures)\n";
    let output = Command::new(&python)
        .args(["-c", script])
        .arg(repository().join("notebooks/three-tenses.ipynb"))
        .arg(folder.path().join("executed.ipynb"))
        .env("TWINLAKE_DSN", format!("host=127.0.0.1 port={postgres} user=twinlake dbname=twinlake"))
        .env("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("pictures 2"), "{told}");
}
