//! `GET /api/v1/openapi.yaml`: what is answered below `/api/v1`, described for programs.

use axum::response::{IntoResponse, Response};
use http::header;
use http_api::{ApiError, ErrorType};
use model::number::Quoted;

use super::{Form, fail};

/// The document; it uses nothing that OpenAPI 3.1 does not have, so that it is one of 3.2 as well.
const DOCUMENT: &str = include_str!("openapi.yaml");
/// Its first line.
const VERSION_LINE: &str = "openapi: 3.1.0\n";

/// `GET /api/v1/openapi.yaml`.
pub(super) async fn document(form: Form) -> Response {
    let document = match form.params.get("openapi_version") {
        "" | "3.1" => DOCUMENT.to_owned(),
        "3.2" => DOCUMENT.replacen(VERSION_LINE, "openapi: 3.2.0\n", 1),
        other => {
            let message = format!("unsupported openapi_version {}: want 3.1 or 3.2", Quoted(other));
            return fail(ApiError::new(ErrorType::BadData, message));
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "application/yaml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    (headers, document).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_its_version_first() {
        assert!(DOCUMENT.starts_with(VERSION_LINE));
    }
}
