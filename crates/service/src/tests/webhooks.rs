//! Steps of events, posted to servers that take them, fail first, refuse or hang.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use twinlake_twin::Events;

use super::*;
use crate::{WebhookSettings, Webhooks};

/// What a server answers, one after the other, then 200; and what it got.
#[derive(Clone, Default)]
struct Taker {
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    got: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn take(State(taker): State<Taker>, headers: HeaderMap, Json(step): Json<Value>) -> StatusCode {
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    let answer = taker.answers.lock().unwrap().pop_front().unwrap_or(StatusCode::OK);
    if answer == StatusCode::OK {
        taker.got.lock().unwrap().push((key, step));
    }
    answer
}

impl Taker {
    /// Its address; it serves as long as the test runs.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook?token=secret", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

fn quick() -> WebhookSettings {
    WebhookSettings {
        attempts: 4,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(10),
        timeout: Duration::from_secs(5),
        ..WebhookSettings::default()
    }
}

async fn watch(town: &Town, addresses: &[&str]) -> Arc<Events> {
    let rule = format!(
        "name = \"fast\"\ndescription = \"Fast.\"\ntwin = \"vehicle\"\nraise_when = \"speed_mps > 6\"\nwebhooks = {addresses:?}\n"
    );
    town.twins.watch(vec![("fast.toml".to_owned(), rule)], "test").await.unwrap()
}

/// Waits until a gauge of `/metrics` has a value, and gives its line.
async fn metric(town: &Town, name: &str, value: u64) -> String {
    let url = format!("http://{}/metrics", town.running.http_addr());
    let mut text = String::new();
    for _ in 0..500 {
        text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        let found = text.lines().find(|line| line.starts_with(&format!("twinlake_{name}{{")));
        if let Some(line) = found.filter(|line| {
            line.rsplit(' ').next().and_then(|told| told.parse::<f64>().ok()) == Some(value as f64)
        }) {
            return line.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} is not {value}:\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_arrive_in_order_also_where_the_server_fails_first() {
    let town = Town::open().await;
    let taker = Taker::default();
    taker.answers.lock().unwrap().extend([StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]);
    let address = taker.start().await;
    let events = watch(&town, &[&address]).await;
    while events.open().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Begun after the first step, and yet nothing is missed.
    let webhooks = Webhooks::start(&events, quick()).unwrap().unwrap();
    webhooks.measure(town.running.metrics());
    let event = events.open().await.remove(0).event_id;
    events.acknowledge(&event, Some("Aino".to_owned()), None).await.unwrap();
    let line = metric(&town, "webhook_sent", 2).await;
    assert!(line.contains("/hook") && !line.contains("secret"), "{line}");
    metric(&town, "webhook_retries", 2).await;
    metric(&town, "webhook_dropped", 0).await;
    metric(&town, "webhook_waiting", 0).await;
    let got = taker.got.lock().unwrap().clone();
    let told: Vec<(&Value, &Value, &Value)> =
        got.iter().map(|(_, step)| (&step["event_id"], &step["change"], &step["id"])).collect();
    assert_eq!(
        told,
        [
            (&Value::from(event.clone()), &Value::from("raised"), &Value::from("22/1095")),
            (&Value::from(event.clone()), &Value::from("acknowledged"), &Value::from("22/1095")),
        ]
    );
    assert_eq!(got[1].1["who"], "Aino");
    assert_ne!(got[0].0, got[1].0, "each step has a key of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_or_never_taken_is_dropped_and_counted_and_holds_up_nobody() {
    let town = Town::open().await;
    let (refusing, taking) = (Taker::default(), Taker::default());
    refusing.answers.lock().unwrap().extend([StatusCode::BAD_REQUEST; 4]);
    // Nobody listens there.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("http://{}/a", closed.local_addr().unwrap());
    drop(closed);
    let (refusing_at, taking_at) = (refusing.start().await, taking.start().await);
    let events = watch(&town, &[&away, &refusing_at, &taking_at]).await;
    let webhooks = Webhooks::start(&events, quick()).unwrap().unwrap();
    webhooks.measure(town.running.metrics());
    while taking.got.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let url = format!("http://{}/metrics", town.running.http_addr());
    let mut dropped = Vec::new();
    for _ in 0..500 {
        let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with("twinlake_webhook_dropped{"));
        dropped = lines.map(str::to_owned).collect();
        if dropped.iter().filter(|line| line.ends_with(" 1.0") || line.ends_with(" 1")).count() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lost = |address: &str| {
        let shown = address.split('?').next().unwrap();
        let line = dropped.iter().find(|line| line.contains(shown)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((lost(&away), lost(&refusing_at), lost(&taking_at)), (1.0, 1.0, 0.0));
    assert!(refusing.answers.lock().unwrap().len() == 3, "what is refused for good is not tried again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_without_a_webhook_needs_none_and_a_wrong_address_is_named() {
    let town = Town::open().await;
    let events = watch(&town, &[]).await;
    assert!(Webhooks::start(&events, quick()).unwrap().is_none());
    let events = watch(&town, &["http://"]).await;
    let error = Webhooks::start(&events, quick()).unwrap_err().to_string();
    assert!(error.contains("rule 'fast'") && error.contains("http://"), "{error}");
}
