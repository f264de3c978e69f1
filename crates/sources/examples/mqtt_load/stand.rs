//! A broker with a stand-in for the log: what has arrived is appended and synced in one write, then acknowledged.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use twinlake_contracts::{Checkpoint, Message};
use twinlake_sources::{Broker, BrokerOptions, BrokerSettings};

use crate::option;

pub fn run(options: &HashMap<String, String>) {
    let threads = option(options, "threads", 2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
        .block_on(serve(options));
}

async fn serve(options: &HashMap<String, String>) {
    let listen: String = option(options, "listen", "127.0.0.1:1884".to_owned());
    let broker_options = BrokerOptions {
        reuse_port: option(options, "reuse-port", false),
        state: options.get("state").map(std::path::PathBuf::from),
        ..BrokerOptions::default()
    };
    let settings = BrokerSettings { options: broker_options, ..BrokerSettings::new(listen.clone()) };
    let broker = Broker::start(settings).await.unwrap();
    let source = serde_json::json!({"listen": listen, "topics": ["#"], "buffer": 65536});
    let mut source = twinlake_sources::registry().build("mqtt_broker", source).unwrap();
    let mut stream = source.open(&Checkpoint::default()).await.unwrap();
    let mut log = options.get("log").map(|path| std::fs::File::create(path).unwrap());
    println!("pid {} listens on {}", std::process::id(), broker.local_addr());
    let end = tokio::time::sleep(Duration::from_secs(option(options, "seconds", 600)));
    tokio::pin!(end);
    let (mut writes, mut messages, mut said) = (0_u64, 0_u64, Instant::now());
    loop {
        let first = tokio::select! {
            message = stream.next() => message,
            () = &mut end => return,
        };
        let Some(first) = first else { return };
        let mut group: Vec<Message> = vec![first.unwrap()];
        while group.len() < 16_384
            && let Some(Some(more)) = stream.next().now_or_never()
        {
            group.push(more.unwrap());
        }
        let last = group.last().unwrap().position.clone();
        messages += group.len() as u64;
        writes += 1;
        log = tokio::task::spawn_blocking(move || {
            if let Some(file) = &mut log {
                let mut bytes = Vec::new();
                for message in &group {
                    bytes.extend_from_slice(message.origin.as_bytes());
                    bytes.extend_from_slice(&message.payload);
                }
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
            }
            log
        })
        .await
        .unwrap();
        source.acknowledge(&Checkpoint(Some(last))).await.unwrap();
        if said.elapsed() > Duration::from_secs(5) {
            println!("{messages} messages in {writes} writes; {:?}", broker.stats());
            (writes, messages, said) = (0, 0, Instant::now());
        }
    }
}
