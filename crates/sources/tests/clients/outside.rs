//! The `mqtt` source as one of several ingest nodes that share a subscription of a real Mosquitto.

use std::collections::BTreeSet;
use std::net::TcpListener;

use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use twinlake_contracts::Checkpoint;

use crate::support::{PATIENCE, program, spawn, succeed, wait};

#[test]
fn ingest_nodes_share_a_subscription_and_take_over_from_each_other() {
    let (Some(server), Some(publisher)) = (program("mosquitto"), program("mosquitto_pub")) else { return };
    let folder = tempfile::tempdir().expect("folder");
    let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
    let configuration = folder.path().join("mosquitto.conf");
    std::fs::write(&configuration, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
        .expect("write");
    let _server = spawn(&server, &["-c", &configuration.to_string_lossy()]);
    wait("mosquitto", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for protocol in ["5", "3.1.1"] {
        let (out, mut arrived) = mpsc::unbounded_channel();
        let node = |number: usize| {
            let topic = format!("$share/ingest-{number_of}/city/#", number_of = protocol.len());
            let settings = json!({
                "url": format!("mqtt://127.0.0.1:{port}"), "protocol": protocol, "topics": [topic],
                "client_id": format!("node-{protocol}-{number}"), "inflight": 20,
            });
            let mut source = twinlake_sources::registry().build("mqtt", settings).expect("settings");
            let out = out.clone();
            runtime.spawn(async move {
                let mut stream = source.open(&Checkpoint::default()).await.expect("open");
                while let Some(message) = stream.next().await {
                    let message = message.expect("message");
                    let upto = Checkpoint(Some(message.position.clone()));
                    let text = String::from_utf8_lossy(&message.payload).into_owned();
                    out.send((number, text)).expect("listened to");
                    source.acknowledge(&upto).await.expect("acknowledge");
                }
            })
        };
        let (one, two) = (node(1), node(2));
        let port = port.to_string();
        let publish = |text: &str| succeed(&publisher, &["-p", &port, "-q", "1", "-t", "city/x", "-m", text]);
        let mut next = |seconds: u64| {
            let wait = std::time::Duration::from_secs(seconds);
            runtime.block_on(async { tokio::time::timeout(wait, arrived.recv()).await.ok().flatten() })
        };
        // Both are subscribed when both have had a probe.
        let mut probed = BTreeSet::new();
        wait("both nodes", || {
            publish("probe");
            probed.extend(next(1).map(|(node, _)| node));
            probed.len() == 2
        });
        while next(1).is_some() {}
        let mut found = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        for number in 0..40 {
            publish(&number.to_string());
        }
        for _ in 0..40 {
            let (node, text) = next(PATIENCE.as_secs()).expect("a message");
            assert!(found.insert(text.clone()), "{text} came twice");
            nodes.insert(node);
        }
        assert_eq!((found.len(), nodes.len()), (40, 2), "every message once, and both nodes have work");
        // One node ends: the other one takes all that is published from then on.
        one.abort();
        std::thread::sleep(std::time::Duration::from_secs(1));
        for number in 40..60 {
            publish(&number.to_string());
        }
        let mut later = BTreeSet::new();
        while let Some((node, text)) = next(2) {
            assert_eq!(node, 2);
            later.insert(text);
        }
        two.abort();
        println!("version {protocol}: {} of 20 went to the node that stayed", later.len());
        assert!(!later.is_empty());
    }
}
