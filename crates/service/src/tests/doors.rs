//! Opening and closing.

use std::sync::Arc;
use std::time::Duration;

use twinlake_contracts::Error;

use super::Town;
use crate::{Service, ServiceSettings};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_names_itself_and_the_option_that_moves_it() {
    let town = Town::open().await;
    let free = ([127, 0, 0, 1], 0).into();
    let (http, postgres) = (town.running.http_addr(), town.running.postgres_addr());
    for (settings, address, option) in [
        (ServiceSettings { http, postgres: free, ..ServiceSettings::default() }, http, "--http 127.0.0.1:"),
        (
            ServiceSettings { http: free, postgres, ..ServiceSettings::default() },
            postgres,
            "--postgres 127.0.0.1:",
        ),
    ] {
        let error = Service::start(settings, Arc::clone(&town.engine), Arc::clone(&town.twins), None)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error:?}");
        let shown = error.to_string();
        assert!(shown.contains(&format!("{address} is in use")) && shown.contains(option), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_this_machine_only() {
    let settings = ServiceSettings::default();
    assert!(settings.http.ip().is_loopback() && settings.postgres.ip().is_loopback());
    assert!(settings.cors_origins.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_both_doors_though_a_client_stays_connected() {
    let town = Town::open().await;
    let (http, postgres) = (town.running.http_addr(), town.running.postgres_addr());
    let client = super::postgres::connect(&town, "").await;
    client.batch_execute("SELECT 1").await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(5), town.running.shutdown()).await;
    assert!(stopped.is_ok(), "an idle client held the doors open");
    assert!(tokio::net::TcpStream::connect(http).await.is_err());
    assert!(tokio::net::TcpStream::connect(postgres).await.is_err());
    assert!(client.batch_execute("SELECT 1").await.is_err());
}
