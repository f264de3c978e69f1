//! The doors: HTTP and the PostgreSQL wire protocol over one SQL engine.
//!
//! [`Service::start`] opens both. Every answer is a query over the same tables, in a session of its own: an HTTP
//! request has one for itself, a PostgreSQL connection keeps one with its `SET twin.…`. Sessions only read.
//!
//! - HTTP: `/v1/sql`, `/v1/twins`, `/v1/events`, `/v1/scenarios`, `/v1/simulations`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`. Errors are
//!   problem documents (RFC 9457).
//! - PostgreSQL: simple and extended protocol, `pg_catalog`, cursors, cancellation; transactions are accepted and
//!   group settings, there is nothing else to roll back. Errors carry PostgreSQL's SQLSTATE.
//! - Rows are streamed: at most one batch of an answer waits in memory. [`ServiceSettings`] bounds how many queries
//!   run at a time and how long one may be silent.
//! - Defects are logged in full and told without details.

mod answer;
mod failure;
mod geometry;
mod http;
mod json;
mod metrics;
mod options;
mod postgres;
mod readiness;
mod service;
#[cfg(test)]
mod tests;
mod webhooks;
mod workers;

pub use metrics::{Metrics, Reading};
pub use readiness::Readiness;
pub use service::{Running, Service, ServiceSettings};
pub use webhooks::{WebhookSettings, Webhooks};
