//! Metrics and health over HTTP, for scrapers and orchestrators.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric in the OpenMetrics text format, which Prometheus reads |
//! | `/livez`, `/healthz` | 200 while the node's owners answer; 503 asks for a restart |
//! | `/readyz` | 200 while the node is of use: peers, lag, age of the tip, store; `?verbose` lists the checks |
//! | `/` | this list |
//!
//! Plain text with the reason. Only `GET` (and `HEAD`); no request has a body, no connection waits for its
//! request longer than [`HEAD_WITHIN`], and the connections beyond [`MAX_CONNECTIONS`] wait in the kernel's queue. A
//! client that does not read holds its connection for `SERVE_WITHIN` at most.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rookery_runtime::{OnPanic, Scope};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::exit::{Exit, Report};
use crate::front::Front;

/// Connections at a time: a few scrapers and probes, each of which uses one.
pub const MAX_CONNECTIONS: usize = 32;
/// A request's head is a few hundred bytes.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// A connection's whole life. Scrapers open a new one without a word when theirs is closed.
const SERVE_WITHIN: Duration = Duration::from_secs(300);
/// Largest request head; hyper refuses a longer one with 431.
const MAX_HEAD: usize = 8 * 1024;
/// After an accept that failed for want of descriptors, others get time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An answer in progress gets this long when the node stops.
const GRACE: Duration = Duration::from_secs(1);

/// What prometheus-client writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Takes the address. Done before the node starts, so that a taken port is said at once.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Report> {
    TcpListener::bind(address).await.map_err(|error| {
        let report = Report::io(Exit::PortTaken, format_args!("cannot serve metrics on {address}"), &error);
        report.hint(match error.kind() {
            ErrorKind::AddrInUse => {
                "another process has this port: choose one with --metrics IP:PORT".to_owned()
            }
            ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
            _ => "choose another address with --metrics IP:PORT".to_owned(),
        })
    })
}

/// Serves until the scope is cancelled.
pub fn serve(listener: TcpListener, front: Front) {
    let scope = front.env.scope.child("http");
    let clock = front.env.clock;
    let router = router(front);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = scope.clone();
    scope.spawn("http accept", OnPanic::StopNode, async move {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let scope = connections.child("http connection");
                    let connection = connection(stream, router.clone(), scope.clone(), clock);
                    scope.spawn_to_end("http connection", OnPanic::EndScope, async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

async fn connection(stream: TcpStream, router: Router, scope: Scope, clock: rookery_runtime::Clock) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        biased;
        // What a client does wrong ends its connection and is of no interest to anybody else.
        _ = clock.timeout(SERVE_WITHIN, serving.as_mut()) => return,
        () = scope.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = clock.timeout(GRACE, serving).await;
}

fn router(front: Front) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .fallback(async || text(StatusCode::NOT_FOUND, "not found; see /\n".to_owned()))
        .with_state(front)
}

fn text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

async fn index() -> Response {
    text(StatusCode::OK, "rookery\n/metrics\n/livez\n/healthz\n/readyz\n/readyz?verbose\n".to_owned())
}

async fn metrics(State(front): State<Front>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], front.env.metrics.text()).into_response()
}

async fn live(State(front): State<Front>) -> Response {
    match front.view(front.node.status()).await {
        Some(_) => text(StatusCode::OK, "ok\n".to_owned()),
        None => text(StatusCode::SERVICE_UNAVAILABLE, silent()),
    }
}

async fn ready(State(front): State<Front>, RawQuery(query): RawQuery) -> Response {
    let Some(status) = front.view(front.node.status()).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, silent());
    };
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let checks = status.readiness(&front.config.ready);
    let ready = checks.iter().all(|check| check.ok);
    let mut body = String::new();
    for check in checks.iter().filter(|check| verbose || !check.ok) {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        body += &format!("{mark} {}: {}\n", check.name, check.detail);
    }
    let (code, verdict) = match ready {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    text(code, body + verdict)
}

fn silent() -> String {
    format!("not live: the node did not answer within {} s\n", crate::front::VIEW_WITHIN.as_secs())
}
