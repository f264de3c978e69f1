//! Eclipse Paho and npm `mqtt`, each driven by a script of its own language.

use std::path::{Path, PathBuf};

use twinlake_sources::{BrokerLimits, BrokerOptions};

use crate::support::{Stand, program, run, skip};

fn script(name: &str) -> String {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned()))
        .join("tests/clients")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn drive(program: &Path, name: &str, before: &[&str]) {
    let limits = BrokerLimits { inflight: 50, ..BrokerLimits::default() };
    let mut stand = Stand::new(BrokerOptions { limits, ..BrokerOptions::default() });
    let (script, port) = (script(name), stand.port().to_string());
    let mut arguments = before.to_vec();
    arguments.extend_from_slice(&[&script, &port]);
    let output = run(program, &arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    // Each script publishes 200 numbered messages of each quality of service from 1 up under `record/<version>/<qos>`.
    let mut last = std::collections::HashMap::new();
    for _ in 0..2 * 2 * 200 {
        let (topic, number) = stand.recorded();
        let number: u32 = number.parse().expect("number");
        let before = last.insert(topic.clone(), number);
        assert_eq!(before.map_or(0, |before| before + 1), number, "{topic}: in order, once");
    }
    assert_eq!(last.len(), 4);
    stand.nothing_more();
    stand.stop();
}

#[test]
fn paho() {
    let Some(python) = std::env::var_os("TWINLAKE_PYTHON").map(PathBuf::from) else {
        return skip("TWINLAKE_PYTHON, a Python with paho-mqtt,");
    };
    drive(&python, "paho_client.py", &[]);
}

#[test]
fn npm_mqtt() {
    let Some(node) = program("node") else { return };
    if std::env::var_os("TWINLAKE_NODE_MODULES").is_none() {
        return skip("TWINLAKE_NODE_MODULES, a folder with the npm package mqtt,");
    }
    drive(&node, "npm_client.cjs", &[]);
}
