//! `/api/v1/notifications` and `/api/v1/notifications/live`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use http::{StatusCode, header};
use serde::Serialize;

use super::succeed;
use super::targets::rfc3339;
use crate::gateway::Gateway;
use crate::notifications::Notification;

#[derive(Debug, Serialize)]
struct Shown {
    text: &'static str,
    date: String,
    active: bool,
}

fn shown(notification: Notification, active: bool) -> Shown {
    Shown { text: notification.text, date: rfc3339(notification.since), active }
}

/// `GET /api/v1/notifications`.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>) -> Response {
    let active = gateway.notifications.active();
    succeed(&active.into_iter().map(|n| shown(n, true)).collect::<Vec<_>>(), &[])
}

/// `GET /api/v1/notifications/live`: an event for each that begins or ends; 204 when there is no room.
pub(super) async fn live(State(gateway): State<Arc<Gateway>>) -> Response {
    let Some(subscriber) = gateway.notifications.subscribe() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let events = stream::unfold(subscriber, |mut subscriber| async move {
        let changes = subscriber.next().await?;
        let mut out = Vec::new();
        for (notification, active) in changes {
            out.extend_from_slice(b"data: ");
            out.extend(http_api::json::line(&shown(notification, active)));
            out.push(b'\n');
        }
        Some((Ok::<_, Infallible>(out), subscriber))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}
