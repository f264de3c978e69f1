//! The OpenAPI document, made from the handlers.

use utoipa::OpenApi;

use crate::http::{events, influx, ingest, scenarios, simulations, sql, status, twins};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Twinlake",
        description = "A city's twins in three tenses: what was, what is, what would be. Errors are problem documents \
            (RFC 9457). Instants are RFC 3339; geometry in JSON is GeoJSON in the CRS that its column names.",
    ),
    paths(
        sql::sql,
        twins::models,
        twins::states,
        twins::state,
        events::open,
        events::stream,
        events::acknowledge,
        scenarios::list,
        scenarios::show,
        scenarios::put,
        scenarios::delete,
        scenarios::run,
        scenarios::execution,
        simulations::submit,
        simulations::run,
        simulations::result,
        ingest::ingest,
        influx::write_v2,
        influx::write_v1,
        influx::query_v1,
        influx::ping,
        influx::health,
        status::healthz,
        status::readyz,
        status::metrics,
        status::openapi_json,
        status::front_page,
    ),
    components(schemas(crate::http::problem::Problem)),
    tags(
        (name = "sql", description = "Questions in SQL"),
        (name = "twins", description = "State of the twins"),
        (name = "events", description = "What rules say of twins"),
        (name = "ingest", description = "Rows and lines that clients hand in"),
        (name = "scenarios", description = "Forks of the city, and what is run in them"),
        (name = "simulations", description = "What would be"),
        (name = "status", description = "For operators"),
    )
)]
struct Document;

/// The document as pretty JSON with a final newline: what `/openapi.json` answers and `schemas/openapi.json` holds.
pub(crate) fn document_json() -> Result<String, serde_json::Error> {
    let mut text = Document::openapi().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_every_path_is_a_route() {
        let document: serde_json::Value = serde_json::from_str(&document_json().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut documented: Vec<String> = paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let mut routed: Vec<String> = crate::http::routes()
            .iter()
            .map(|route| format!("{} {}", route.method, route.path.replace("{*", "{")))
            .collect();
        documented.sort();
        routed.sort();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_operation_has_a_summary_and_a_described_success() {
        let document: serde_json::Value = serde_json::from_str(&document_json().unwrap()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    responses.keys().any(|status| status.starts_with('2')),
                    "{method} {path} never succeeds"
                );
            }
        }
    }
}
