//! Counters and latencies of the doors, and gauges that others report, in the Prometheus (OpenMetrics) text format.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// From a cached answer (1 ms) to the query timeout.
const LATENCY_BUCKETS_S: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

type Labels = Vec<(String, String)>;

/// One reading of a gauge: its labels (name, value) and its value.
pub type Reading = (Vec<(String, String)>, f64);

struct Reported {
    name: String,
    help: String,
    read: Box<dyn Fn() -> Vec<Reading> + Send + Sync>,
}

/// All metrics of the process. Cheap to clone; every clone is the same set.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reported: Arc<RwLock<Vec<Reported>>>,
    requests: Family<Labels, Counter>,
    latency: Family<Labels, Histogram, fn() -> Histogram>,
    queries: Family<Labels, Counter>,
    connections: Gauge,
    connections_total: Counter<u64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS_S)
}

impl Metrics {
    /// An own set of metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("twinlake");
        let requests = Family::default();
        let latency = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        let queries = Family::default();
        let connections = Gauge::default();
        let connections_total = Counter::default();
        let reported = Arc::new(RwLock::new(Vec::new()));
        registry.register("http_requests", "HTTP requests by method, route and status", requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the request to the head of the answer, by method and route",
            latency.clone(),
        );
        registry.register("queries", "Queries by door (http, postgres) and outcome", queries.clone());
        registry.register(
            "postgres_connections",
            "PostgreSQL connections that are open",
            connections.clone(),
        );
        registry.register(
            "postgres_connections_accepted",
            "PostgreSQL connections accepted since the start",
            connections_total.clone(),
        );
        registry.register_collector(Box::new(ReportedCollector(Arc::clone(&reported))));
        Self {
            registry: Arc::new(registry),
            reported,
            requests,
            latency,
            queries,
            connections,
            connections_total,
        }
    }

    /// Adds a gauge that is read at each scrape: `read` gives one value for each set of labels, quickly and without
    /// blocking. The name is prefixed with `twinlake_`.
    pub fn report(
        &self,
        name: impl Into<String>,
        help: impl Into<String>,
        read: impl Fn() -> Vec<Reading> + Send + Sync + 'static,
    ) {
        let mut reported = self.reported.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        reported.push(Reported { name: name.into(), help: help.into(), read: Box::new(read) });
    }

    /// The text of all metrics.
    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn request(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        let route_labels =
            vec![("method".to_owned(), method.to_owned()), ("route".to_owned(), route.to_owned())];
        self.latency.get_or_create(&route_labels).observe(elapsed.as_secs_f64());
        let mut labels = route_labels;
        labels.push(("status".to_owned(), status.to_string()));
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn query(&self, door: &str, outcome: &str) {
        let labels = vec![("door".to_owned(), door.to_owned()), ("outcome".to_owned(), outcome.to_owned())];
        self.queries.get_or_create(&labels).inc();
    }

    /// Counts a PostgreSQL connection as open for as long as the guard lives.
    pub(crate) fn connection(&self) -> ConnectionCount {
        self.connections.inc();
        self.connections_total.inc();
        ConnectionCount(self.connections.clone())
    }
}

/// A connection that is open.
pub(crate) struct ConnectionCount(Gauge);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct ReportedCollector(Arc<RwLock<Vec<Reported>>>);

impl fmt::Debug for ReportedCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportedCollector")
    }
}

impl Collector for ReportedCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let reported = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        for gauge in reported.iter() {
            let mut family = encoder.encode_descriptor(&gauge.name, &gauge.help, None, MetricType::Gauge)?;
            let readings = (gauge.read)();
            if let [(labels, value)] = readings.as_slice()
                && labels.is_empty()
            {
                ConstGauge::new(*value).encode(family)?; // without braces around nothing
                continue;
            }
            for (labels, value) in readings {
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_counts_latencies_and_reported_gauges() {
        let metrics = Metrics::new();
        metrics.request("GET", "/healthz", 200, Duration::from_millis(3));
        metrics.query("http", "ok");
        let open = metrics.connection();
        metrics.report("broker_connections", "Connections to the MQTT broker", || {
            vec![(vec![("listen".to_owned(), "127.0.0.1:1883".to_owned())], 3.0)]
        });
        let text = metrics.render().unwrap();
        for line in [
            r#"twinlake_http_requests_total{method="GET",route="/healthz",status="200"} 1"#,
            r#"twinlake_http_request_duration_seconds_bucket{le="0.005",method="GET",route="/healthz"} 1"#,
            r#"twinlake_queries_total{door="http",outcome="ok"} 1"#,
            "twinlake_postgres_connections 1",
            r#"twinlake_broker_connections{listen="127.0.0.1:1883"} 3.0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        drop(open);
        assert!(metrics.render().unwrap().contains("twinlake_postgres_connections 0"));
    }
}
