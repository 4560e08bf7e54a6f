//! The HTTP side: paths, lists in pages, watches as streams of lines.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::select::Selection;
use super::{Change, Page, RESOURCES, Resource, Shared};

/// How often watches are told where they are.
const BOOKMARKS_EVERY: Duration = Duration::from_millis(500);
/// How long a watch lasts that does not say.
const WATCH_LASTS: Duration = Duration::from_secs(300);
/// How many lists may be open in pages.
const PAGES_MAX: usize = 1_000;

type Parameters = HashMap<String, String>;

/// Serves until told to stop, on a runtime of its own.
pub(super) fn run(listener: std::net::TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let router = Router::new().fallback(answer).with_state(shared);
        let serving = axum::serve(listener, router);
        tokio::select! {
            // Nothing is sent: the other end is dropped.
            _ = stopped => {}
            served = serving => served.expect("served"),
        }
    });
}

async fn answer(
    Extract(shared): Extract<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let mut state = shared.lock();
    let wanted = format!("Bearer {}", state.token);
    let is_open = state.token.is_empty();
    if !is_open && headers.get(header::AUTHORIZATION).is_none_or(|given| *given != wanted) {
        return failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    }
    state.requests.push(uri.to_string());
    drop(state);
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let (group_version, rest) = match parts.as_slice() {
        ["version"] => return ok(&json!({"major": "1", "minor": "30", "gitVersion": "v1.30.0"})),
        ["api"] => return ok(&json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => return ok(&groups()),
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return not_found(),
    };
    let (namespace, plural, name) = match rest {
        [] => return resources(&group_version),
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
        [plural] => (None, *plural, None),
        [plural, name] => (None, *plural, Some(*name)),
        _ => return not_found(),
    };
    let known = RESOURCES.iter().find(|of| of.group_version == group_version && of.plural == plural);
    let Some(resource) = known else { return not_found() };
    let selection = Selection::new(plural, namespace, &query);
    let is_watch = query.get("watch").is_some_and(|text| matches!(text.as_str(), "true" | "1"));
    match name {
        Some(name) => one(&shared, &selection, name),
        None if is_watch => start_watch(shared, resource, selection, uri.path(), &query),
        None => list(&shared, resource, &selection, &query),
    }
}

fn ok(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    })
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    (code, ok(&status(code, reason, message))).into_response()
}

fn not_found() -> Response {
    failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
}

fn gone() -> Value {
    status(StatusCode::GONE, "Expired", "too old resource version")
}

/// `/apis`.
fn groups() -> Value {
    let mut names: Vec<&str> =
        RESOURCES.iter().map(|of| of.group_version).filter(|name| *name != "v1").collect();
    names.dedup();
    let group = |group_version: &str| {
        let (name, version) = group_version.split_once('/').expect("a group has a version");
        let version = json!({"groupVersion": group_version, "version": version});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let groups: Vec<Value> = names.into_iter().map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
fn resources(group_version: &str) -> Response {
    let resource = |of: &Resource| {
        json!({
            "name": of.plural, "singularName": "", "namespaced": of.is_namespaced, "kind": of.kind,
            "verbs": ["get", "list", "watch"],
        })
    };
    let known: Vec<Value> =
        RESOURCES.iter().filter(|of| of.group_version == group_version).map(resource).collect();
    if known.is_empty() {
        return not_found();
    }
    ok(&json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": known}))
}

fn one(shared: &Shared, selection: &Selection, name: &str) -> Response {
    let found =
        shared.lock().selected(selection).into_iter().find(|object| object["metadata"]["name"] == name);
    found.map_or_else(not_found, |object| ok(&object))
}

/// A list, or the next page of one: all pages show the state that the first one saw.
fn list(shared: &Shared, resource: &Resource, selection: &Selection, query: &Parameters) -> Response {
    let mut state = shared.lock();
    let (version, mut items) = match query.get("continue") {
        Some(token) => match state.pages.remove(token) {
            Some(page) => (page.version, page.rest),
            None => {
                return failure(StatusCode::GONE, "Expired", "The provided continue parameter is too old");
            }
        },
        None => (state.version, state.selected(selection)),
    };
    // As a real one does, a list of any version is answered from memory, all at once.
    let is_any_version = query.get("resourceVersion").is_some_and(|version| version == "0");
    let limit = query.get("limit").and_then(|text| text.parse::<usize>().ok());
    let limit = limit.filter(|limit| *limit > 0 && !is_any_version).unwrap_or(usize::MAX);
    let mut meta = json!({"resourceVersion": version.to_string()});
    if items.len() > limit {
        let rest = items.split_off(limit);
        meta["remainingItemCount"] = json!(rest.len());
        let token = format!("page-{}", state.next_id());
        meta["continue"] = json!(token);
        assert!(state.pages.len() < PAGES_MAX, "pages are fetched");
        state.pages.insert(token, Page { version, rest });
    }
    let (kind, group_version) = (resource.kind, resource.group_version);
    ok(&json!({"kind": format!("{kind}List"), "apiVersion": group_version, "metadata": meta, "items": items}))
}

/// A watch that is open.
struct Watch {
    shared: Arc<Shared>,
    changed: watch::Receiver<()>,
    id: u64,
    selection: Selection,
    kind: &'static str,
    group_version: &'static str,
    version: u64,
    /// What there is already, for a watch that takes the place of a list.
    initial: Option<String>,
    breaks: u64,
    until: Instant,
    bookmarks: Option<Interval>,
    has_ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().watches.remove(&self.id);
    }
}

fn start_watch(
    shared: Arc<Shared>,
    resource: &Resource,
    selection: Selection,
    path: &str,
    query: &Parameters,
) -> Response {
    let seconds = query.get("timeoutSeconds").and_then(|text| text.parse().ok());
    let lasts = seconds.map_or(WATCH_LASTS, Duration::from_secs);
    let has_bookmarks = query.get("allowWatchBookmarks").is_some_and(|text| text == "true");
    let version = query.get("resourceVersion").and_then(|text| text.parse().ok());
    let selectors = ["labelSelector", "fieldSelector"].map(|name| {
        query
            .get(name)
            .filter(|text| !text.is_empty())
            .map(|text| format!(" {name}={text}"))
            .unwrap_or_default()
    });
    let changed = shared.changed.subscribe();
    let mut state = shared.lock();
    let id = state.next_id();
    state.watches.insert(id, format!("{path}{}", selectors.concat()));
    let (breaks, version) = (state.breaks, version.filter(|version| *version > 0).unwrap_or(state.version));
    let is_list = query.get("sendInitialEvents").is_some_and(|text| text == "true");
    let version = if is_list { state.version } else { version };
    let initial = is_list.then(|| {
        let added = state.selected(&selection).into_iter().map(|object| line("ADDED", &object));
        let mut end = bookmark(resource.kind, resource.group_version, version);
        end["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        added.chain([line("BOOKMARK", &end)]).collect()
    });
    drop(state);
    let mut bookmarks = interval(BOOKMARKS_EVERY);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        shared,
        changed,
        id,
        selection,
        kind: resource.kind,
        group_version: resource.group_version,
        version,
        initial,
        breaks,
        until: Instant::now() + lasts,
        bookmarks: has_bookmarks.then_some(bookmarks),
        has_ended: false,
    };
    let lines =
        stream::unfold(watch, |mut watch| async move { watch.next().await.map(|lines| (lines, watch)) });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

impl Watch {
    /// The next lines; `None` at the end, an error where the connection is to break.
    async fn next(&mut self) -> Option<io::Result<String>> {
        loop {
            if self.has_ended {
                return None;
            }
            if let Some(initial) = self.initial.take() {
                return Some(Ok(initial));
            }
            if let Some(news) = self.news() {
                return Some(news);
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(bookmarks) => bookmarks.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Never closed: the sender lives in what this holds.
                _ = self.changed.changed() => {}
                () = sleep_until(self.until) => return None,
                _ = tick => {
                    return Some(Ok(line("BOOKMARK", &bookmark(self.kind, self.group_version, self.version))));
                }
            }
        }
    }

    fn news(&mut self) -> Option<io::Result<String>> {
        let state = self.shared.lock();
        if state.breaks > self.breaks {
            return Some(Err(io::Error::other("the watch is broken on purpose")));
        }
        if self.version < state.oldest_version {
            self.has_ended = true;
            return Some(Ok(line("ERROR", &gone())));
        }
        let new = state.changes.iter().filter(|change| change.version > self.version);
        let lines: String = new.filter_map(|change| event(change, &self.selection)).collect();
        let version = state.version;
        drop(state);
        self.version = version;
        (!lines.is_empty()).then_some(Ok(lines))
    }
}

/// An object that says nothing but how far a watch has come.
fn bookmark(kind: &str, group_version: &str, version: u64) -> Value {
    json!({
        "kind": kind, "apiVersion": group_version,
        "metadata": {"resourceVersion": version.to_string()},
    })
}

/// What a change is for those who see what the selection takes.
fn event(change: &Change, selection: &Selection) -> Option<String> {
    let taken = |object: &Option<Value>| {
        let taken = object.clone().filter(|object| selection.takes(object));
        taken.filter(|_| change.resource == selection.resource)
    };
    match (taken(&change.before), taken(&change.after)) {
        (None, None) => None,
        (None, Some(after)) => Some(line("ADDED", &after)),
        (Some(_), Some(after)) => Some(line("MODIFIED", &after)),
        (Some(mut before), None) => {
            before["metadata"]["resourceVersion"] = json!(change.version.to_string());
            Some(line("DELETED", &before))
        }
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
